"""The subcommands of `vmunet` that need the library alone, a module each.

A module has HELP (a line of `vmunet --help`), ABOUT and NOTES (above and below its own options)
and `add_arguments`, which sets the function that runs it. Imports of anything heavy stand inside
the functions, so that `--help` answers at once.
"""
