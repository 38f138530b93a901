"""The subcommand `vmunet profile`: list the budgets and switch to one."""

import argparse

HELP = "show the profiles, or switch to one"
ABOUT = """\
Show the profiles (budgets) and mark the active one, or switch to NAME: params.yaml then declares
its grid. Run it in the repository's root.
"""
NOTES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vmunet profile`."""
    parser.set_defaults(command=profile)
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a file of profiles/, without .yaml"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace the grid in params.yaml even if it was edited by hand",
    )


def profile(arguments: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        InputError: there is no such profile, the grid was edited by hand, or params.yaml is
            unreadable.
    """
    from pipeline.config.params import PROFILES, load_params
    from pipeline.config.profiles import grid_edits, switch_profile
    from pipeline.config.yaml_file import read_yaml

    if arguments.name:
        switch_profile(arguments.name, arguments.replace)
    active = load_params().profile_name
    for file in sorted(PROFILES.glob("*.yaml")):
        mark = "*" if file.stem == active else " "
        about = " ".join(str(read_yaml(file).get("about", "")).split())
        print(f"{mark} {file.stem:6} {about}")
    if edits := grid_edits():
        print("params.yaml was edited by hand and differs from the profile:", *edits, sep="\n  ")
