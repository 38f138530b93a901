"""The subcommands of `vmunet` that need a clone, a module each as `vmunet.commands` says."""
