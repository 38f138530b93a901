"""`vmunet search`: the command line of a search."""

import argparse
import time

from pipeline.commands.sweep import NO_OPTIONS, stop_as_ctrl_c_does
from pipeline.sweep.console import say

HELP = "search better settings for a cell"
ABOUT = """\
Search better settings for a cell on a view: learning rate, weight decay, drop path rate, the
weights of cross-entropy and Dice, and augmentation. Run it in the repository's root, with the
view's arrays prepared (`dvc repro preprocess@VIEW`) and, unless the cell starts from scratch, the
weights (`dvc repro weights`).

A trial trains the cell with settings that Optuna draws (TPE). Its score is its lowest loss on
the held-out part of the training images, under both protocols; test images are never opened. The
first trial has the cell's own settings, for comparison. Trials with a poor loss are ended after few
epochs (Hyperband).

The study is in .search/STUDY.log. Ctrl-C stops the search; the same command continues it until the
study has N trials, also after `kill -9`: an interrupted trial continues from its last epoch. If the
command is started twice, both processes work on the same study.
"""

NOTES = """\
examples:
  vmunet search isic17-64                               (20 trials of the base cell)
  vmunet search isic17-64 --cell scratch --trials 50
  vmunet search isic17-256 --epochs 60 --timeout 36000  (shorter trials; none starts after 10 h)
  vmunet search polyps --cell scratch                   (your own dataset)

result: reports/out/search/STUDY/index.md with the table of trials, plots of the history and of each
setting's importance, and the best settings as a cell for params.yaml, which is also printed. Output
of the trials: .search/STUDY/logs/. In MLflow each trial is a run nested in the study's; Prefect's
page (`vmunet ui`) shows them as tasks.

With --parallel 1 a repeated study draws the same trials, and on a CPU its results are identical.
A study belongs to its view, cell, protocol, epochs, data and profile: if one of them has changed,
give --study another name.

exit status: 0 a trial ended well, 1 no trial ended well, 2 wrong input, 130 stopped by Ctrl-C.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `vmunet search`; their defaults are those of `SearchOptions`."""
    parser.set_defaults(command=search)
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("view", metavar="VIEW", help="a view of params.yaml, such as isic17-256")
    parser.add_argument(
        "--cell",
        metavar="NAME",
        help="cell whose settings are varied (default: base)",
    )
    parser.add_argument(
        "--protocol",
        choices=["paper", "sound"],
        help="training protocol of the trials (default: sound)",
    )
    parser.add_argument(
        "--trials",
        metavar="N",
        type=int,
        help="total number of trials of the study (default: 20)",
    )
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=int,
        help="trials at once (default: one on each GPU; without a GPU one on each core, at most 8)",
    )
    parser.add_argument(
        "--gpus",
        metavar="0,1",
        help="GPUs to use, or `none` (default: all)",
    )
    parser.add_argument(
        "--epochs", metavar="N", type=int, help="epochs of a complete trial (default: profile's)"
    )
    parser.add_argument(
        "--study", metavar="NAME", help="the study's name (default: VIEW-CELL-PROTOCOL)"
    )
    parser.add_argument("--timeout", metavar="S", type=float, help="start no trial after S seconds")


def search(arguments: argparse.Namespace) -> int:
    """Run the search and return its exit status.

    Raises:
        InputError: an option, params.yaml or the study has a mistake.
    """
    from pipeline.config.params import load_params
    from pipeline.search.options import SearchOptions
    from pipeline.sweep.prefect.server import use_server

    values = {name: value for name, value in vars(arguments).items() if name not in NO_OPTIONS}
    options = SearchOptions(**values)

    params = load_params()  # check the names before Prefect shows a search that cannot run
    params.view(options.view)
    params.cell(options.cell)
    stop_as_ctrl_c_does()
    started = time.monotonic()
    if use_server(say):
        from pipeline.search.flow import search as flow
        from pipeline.sweep.prefect.tasks import watch

        failed = watch(flow, options)
    else:
        failed = None
    if failed is None:
        from pipeline.search.execution import run_search

        failed = run_search(options, say)
    say(f"{time.monotonic() - started:.0f} s")
    return 1 if failed else 0
