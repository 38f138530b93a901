"""`vmunet mlflow`: give the tracking store what it lacks."""

import argparse
import sys

ABOUT = """\
Make or complete the runs of MLflow's store from runs/ and metrics/: after the store was away, or
lost. What it has is left as it is. Goes to MLFLOW_TRACKING_URI, or to mlflow.db in the repository's
root. Run it there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `rebuild`, and `sync` as another name of it."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    about = "make or complete the runs that the store lacks"
    rebuild = commands.add_parser("rebuild", aliases=["sync"], help=about)
    rebuild.set_defaults(command=_rebuild)


def _rebuild(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params
    from pipeline.tracking.rebuild import rebuild

    done = rebuild(load_params())
    for note in done.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(f"{done.logged} runs made or completed, {done.there} were there")
