"""`vmunet mlflow`: what the tracking store is to be told, afterwards."""

import argparse
import sys

HELP = "send what MLflow missed, or rebuild its runs"
ABOUT = """\
Send to MLflow what could not be sent (sync), or make the runs again that its store does not have
(rebuild), from runs/ and metrics/. Runs that it has are left as they are. Both go to
MLFLOW_TRACKING_URI, or to mlflow.db in the repository's root. Run it there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `sync` and `rebuild`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    sync = commands.add_parser("sync", help="send what waits in .mlflow-outbox/")
    sync.set_defaults(command=_sync)
    rebuild = commands.add_parser("rebuild", help="make the runs that the store does not have")
    rebuild.set_defaults(command=_rebuild)


def _sync(arguments: argparse.Namespace) -> None:
    from pipeline.tracking.rebuild import sync

    done = sync()
    _say(done.notes)
    busy = f", {done.left} are still at work and send theirs" if done.left else ""
    print(f"{done.sent} runs sent{busy}")


def _rebuild(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params
    from pipeline.tracking.rebuild import rebuild

    done = rebuild(load_params())
    _say(done.notes)
    print(f"{done.sent} runs made, {done.left} were there")


def _say(notes: list[str]) -> None:
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
