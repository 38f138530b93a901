"""The subcommands of `vmunet`, a module each."""
