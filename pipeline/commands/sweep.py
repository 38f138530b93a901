"""`vmunet sweep`: the command line of a sweep."""

import argparse
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.sweep.console import say
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.sweep.options import SweepOptions

HELP = "run the cells that are not up to date, several at once"
ABOUT = """\
Run the cells of the grid that are not up to date, several at once: downloads and preprocessing
first, then every cell, the longest first, each cell's evaluation as soon as it is trained, the
tables last. Run it in the repository's root.

Each stage runs the command of dvc.yaml, and DVC records it: stages that are up to date are skipped,
and afterwards `dvc repro` has nothing to do. A cell that fails is tried again from its checkpoint,
unless its input is wrong. If all attempts of a cell fail, the other cells continue. Ctrl-C stops
the sweep; the same command continues it.
"""

NOTES = """\
examples:
  vmunet sweep                                 (everything that `dvc repro` would run)
  vmunet sweep --dry-run                       (list these stages in the order of their start)
  vmunet sweep --tables 3,4                    (the cells that Tables III and IV show)
  vmunet sweep --cells 'isic17-*-base-*'       (cells by name; `vmunet runs` lists them)
  vmunet sweep --seeds 1,2                     (seeds that params.yaml declares in grid.seeds)
  vmunet sweep --parallel 4 --gpus 0,1,2,3
  vmunet sweep --runner dask --address tcp://10.0.0.5:8786   (on more machines: docs/cluster.md)

The tables need the scores of all cells: a sweep of some cells makes the tables if the other cells
are up to date.

Output of each stage: .sweep/logs/STAGE.log. To watch the sweep in a browser, start
`vmunet ui` first, or set PREFECT_API_URL to a Prefect server; a sweep also runs without a server.

On a CPU the cells share the cores, and a training's bits depend on its number of threads: with
another --parallel, an interrupted training starts from its first epoch.

exit status: 0 all is up to date, 1 something failed, 2 wrong input, 130 stopped by Ctrl-C.
"""

NO_OPTIONS = ("command", "dry_run")  # parsed arguments that are not options of a sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `vmunet sweep`; their defaults are those of `SweepOptions`."""
    parser.set_defaults(command=sweep)
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("--tables", metavar="3,4", help="only the cells that these tables show")
    parser.add_argument(
        "--cells",
        metavar="GLOB",
        action="append",
        help="only the cells whose name matches, such as 'isic17-*-base-*'; may be repeated",
    )
    parser.add_argument("--seeds", metavar="1,2", help="only these of the declared seeds")
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=int,
        help="stages at once (default: one on each GPU; without a GPU one on each core, at most 8)",
    )
    parser.add_argument(
        "--gpus",
        metavar="0,1",
        help="GPUs to use, or `none` (default: all)",
    )
    parser.add_argument(
        "--retries",
        metavar="N",
        type=int,
        help="further attempts for a stage that fails, after 5 s, 10 s, ... (default: 2)",
    )
    parser.add_argument(
        "--runner",
        metavar="dask",
        help="machines that run the cells: `local`, this one, or `dask`, a cluster's workers, each "
        "in its own clone (docs/cluster.md)",
    )
    parser.add_argument(
        "--address",
        metavar="tcp://HOST:8786",
        help="address of the Dask scheduler",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        default=False,
        help="only list the stages that would run",
    )


def sweep(arguments: argparse.Namespace) -> int:
    """Run the sweep and return its exit status."""
    from pipeline.repair.guard import start_guard
    from pipeline.sweep.options import SweepOptions

    values = {name: value for name, value in vars(arguments).items() if name not in NO_OPTIONS}
    readers: dict[str, Callable[..., Iterable[Any]]]
    readers = {"tables": words, "cells": tuple, "seeds": numbers}
    for name in readers.keys() & values.keys():
        text, values[name] = values[name], tuple(readers[name](values[name]))
        if text is not None and not values[name]:  # an unset variable must not mean all cells
            raise InputError(f"--{name} {text!r}: names nothing")
    options = SweepOptions(**values)
    stop_as_ctrl_c_does()
    if arguments.dry_run:
        return dry_run(options)

    started = time.monotonic()
    start_guard(os.getpid())
    try:
        incomplete = run(options)
    except KeyboardInterrupt:
        say(f"stopped; to continue: {again(options)}")
        return 130
    took = f"took {time.monotonic() - started:.0f} s"
    if incomplete:
        say(f"{took}; to run what is left: {again(options)}")
        return 1
    say(took)
    if options.everything:
        from pipeline.sweep.results import results

        if text := results(Path(".")):
            print(text)
    return 0


def run(options: "SweepOptions") -> bool:
    """Run the sweep, with Prefect if a server answers; return whether it is incomplete."""
    from pipeline.sweep.prefect.server import use_server

    if use_server(say):
        from pipeline.sweep.prefect.flow import sweep as flow
        from pipeline.sweep.prefect.tasks import watch

        incomplete = watch(flow, options)
        if incomplete is not None:
            return incomplete
    from pipeline.sweep.execution import run_sweep

    return run_sweep(options, say)


def again(options: "SweepOptions") -> str:
    """The command that continues a sweep with these options."""
    from pipeline.sweep.options import SweepOptions

    if options == SweepOptions() and os.environ.get("MAKELEVEL"):
        return "make tables"
    return shlex.join(options.command)


def dry_run(options: "SweepOptions") -> int:
    """Print the stages that would run, in the order of their start."""
    from pipeline.sweep.execution import sweep_summary
    from pipeline.sweep.plan import plan_sweep

    planned = plan_sweep(options, Path("."), say)
    for name in planned.in_order():
        certain = name in planned.out_of_date
        print(f"{name}{'' if certain else '  (if the outputs that it needs change)'}")
    print(sweep_summary(planned))
    return 0


def stop_as_ctrl_c_does() -> None:
    """Let SIGTERM, which `kill` sends, end the process as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def words(text: str | None) -> list[str]:
    """The words between the commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def numbers(text: str | None) -> list[int]:
    """Whole numbers, separated by commas.

    Raises:
        InputError: a word is not a whole number.
    """
    for word in words(text):
        if not word.isdecimal():
            raise InputError(f"--seeds {text}: expected whole numbers separated by commas")
    return [int(word) for word in words(text)]
