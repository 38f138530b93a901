"""`vmunet search`: the command line of a search."""

import argparse
import signal
import threading
import time
from typing import Any

from pipeline.commands.sweep import say

HELP = "search better settings for a cell"
ABOUT = """\
Search better settings for a cell on a view: learning rate, weight decay, drop path rate, the
weights of cross-entropy and Dice, and augmentation. Run it in the repository's root, with the
view's arrays prepared (`dvc repro preprocess@VIEW`) and, unless the cell starts from scratch, the
weights (`dvc repro weights`).

A trial trains the cell with settings that Optuna draws (TPE) and is judged by its lowest loss on
the held-out part of the training images, under either protocol; test images are never opened. The
first trial has the cell's own settings, to compare with. Trials that promise little are ended
after few epochs (Hyperband).

The study is kept in .search/STUDY.log. Ctrl-C stops; the same command goes on until the study has
its N trials, after `kill -9` too: a trial that was interrupted goes on from its last epoch. Started
twice, both work on the same study.
"""

NOTES = """\
examples:
  vmunet search isic17-64                               (20 trials of the base cell)
  vmunet search isic17-64 --cell scratch --trials 50
  vmunet search isic17-256 --epochs 60 --timeout 36000  (shorter trials, none new after 10 h)
  vmunet search polyps --cell scratch                   (a dataset of your own)

result: reports/out/search/STUDY/index.md with the table of trials, plots of the history and of each
setting's importance, and the best settings as a cell for params.yaml, which is printed too. Output
of the trials: .search/STUDY/logs/. In MLflow each trial is a run nested in the study's; Prefect's
page (`vmunet ui`) shows them as tasks.

With --parallel 1 a study draws the same trials again, on a CPU with the same results to the bit.
A study belongs to its view, cell, protocol, epochs, data and profile: where one of them has
changed, give --study another name.

exit status: 0 there is a best trial, 1 no trial came to its end, 2 wrong input, 130 Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `vmunet search`."""
    parser.set_defaults(command=search)
    parser.add_argument("view", metavar="VIEW", help="a view of params.yaml, such as isic17-256")
    parser.add_argument(
        "--cell", metavar="NAME", default="base", help="where to start from (default: base)"
    )
    parser.add_argument(
        "--protocol",
        choices=["paper", "sound"],
        default="sound",
        help="how trials train (default: sound)",
    )
    parser.add_argument(
        "--trials",
        metavar="N",
        type=int,
        default=20,
        help="how many the study is to have in all (default: 20)",
    )
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=int,
        help="trials at once (default: one on each GPU; without a GPU one on each core, at most 8)",
    )
    parser.add_argument(
        "--gpus", metavar="0,1", default="all", help="GPUs to use, or `none` (default: all)"
    )
    parser.add_argument(
        "--epochs", metavar="N", type=int, help="of a whole trial (default: the profile's)"
    )
    parser.add_argument(
        "--study", metavar="NAME", help="the study's name (default: VIEW-CELL-PROTOCOL)"
    )
    parser.add_argument("--timeout", metavar="S", type=float, help="start no trial after S seconds")


def search(arguments: argparse.Namespace) -> int:
    """Run the search and return its exit status."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` stops as Ctrl-C does
    names = ("view", "cell", "protocol", "trials", "parallel", "epochs", "study", "timeout", "gpus")
    options = {name: getattr(arguments, name) for name in names}
    check(options)
    from pipeline.sweep.prefect_server import use_server

    started = time.monotonic()
    if use_server(say):
        from pipeline.search.flow import watched

        nothing = watched(options)
    else:
        from pipeline.search.run import carry_out

        nothing = carry_out(options, say)
    say(f"{time.monotonic() - started:.0f} s")
    return 1 if nothing else 0


def check(options: dict[str, Any]) -> None:
    """Refuse numbers that make no sense, and names that nothing has.

    Raises:
        InputError: naming the option.
    """
    from pipeline.config.params import load_params
    from vmunet.errors import InputError

    for name in ("trials", "parallel", "epochs"):
        if options[name] is not None and options[name] < 1:
            raise InputError(f"--{name} {options[name]}: expected at least 1")
    if options["timeout"] is not None and not options["timeout"] > 0:
        raise InputError(f"--timeout {options['timeout']}: expected more than 0 seconds")
    params = load_params()
    params.view(options["view"])
    params.cell(options["cell"])
