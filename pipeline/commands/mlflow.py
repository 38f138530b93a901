"""`vmunet mlflow`: add the runs and values that the tracking store lacks."""

import argparse
import sys

HELP = "add the runs and values that MLflow lacks"
ABOUT = """\
Make or complete the runs of MLflow's store from runs/ and metrics/, if the store did not answer or
was lost. Existing entries do not change. The store is MLFLOW_TRACKING_URI, or mlflow.db in the
repository's root. Run the command there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `rebuild`, with `sync` as its other name."""
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
    if done.closed:
        print(f"{done.closed} runs of dead processes closed as KILLED")
