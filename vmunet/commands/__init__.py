"""The subcommands of `vmunet` that need only the library, a module for each.

A module has HELP (a line of `vmunet --help`), ABOUT and NOTES (above and below its own options)
and `add_arguments`, which sets the function that runs it. Heavy imports stand inside the
functions, so that `--help` answers at once.
"""
