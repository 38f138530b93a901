"""The subcommand `vmunet version`."""

import argparse

HELP = "print the version"
ABOUT = "Print the versions of vmunet, of Python and of PyTorch."
NOTES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet version`."""
    parser.set_defaults(command=print_version)


def print_version(arguments: argparse.Namespace) -> None:
    """Run the subcommand."""
    import platform
    from importlib.metadata import version

    print(
        f"vmunet {version('vmunet')} (Python {platform.python_version()}, torch {version('torch')})"
    )
