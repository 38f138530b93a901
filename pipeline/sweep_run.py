"""A sweep from its options to its summary, whatever runs the stages side by side."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.devices import Devices
from pipeline.fan_out import Runner, Sweep, Threads, one_at_a_time, plan, run, summary
from pipeline.params import read_yaml
from pipeline.selection import CELL, Options
from vmunet.errors import InputError

MakeRunner = Callable[[int, int], Runner]


def carry_out(
    options: Mapping[str, Any],
    say: Callable[[str], None],
    make_runner: MakeRunner = Threads,
    root: Path = Path("."),
) -> bool:
    """Plan, run and summarise a sweep; whether anything failed.

    Args:
        options: those of `vmunet sweep`: tables, cells, seeds, parallel, gpus, retries.
        say: told each event, in a line.
        make_runner: gives a runner for a width and a number of retries.

    Raises:
        InputError: an option, params.yaml or dvc.yaml has a mistake.
    """
    if os.name != "posix":
        raise InputError("a sweep needs process groups and file locks as Linux and macOS have them")
    devices = Devices(options["parallel"], options["gpus"])
    with one_at_a_time(root, say) as lock:
        sweep = plan(selected(options), root, say)
        if not sweep.to_run:
            say(summary(sweep))
            return False
        say(f"{len(sweep.to_run)} stages to run, {sweep.up_to_date} up to date; {devices}")
        runner = make_runner(devices.width, options["retries"])
        try:
            with in_mlflow(sweep, root):
                run(sweep, runner, devices, lock, options["retries"], say)
        finally:
            say(summary(sweep))
        return failed(sweep)


@contextmanager
def in_mlflow(sweep: Sweep, root: Path) -> Iterator[None]:
    """A run of MLflow for the sweep, beneath which its cells log theirs.

    Where nothing is trained there is none; where the store is away, cells log without a parent.
    """
    cells = [name for name in sweep.to_run if CELL.fullmatch(name)]
    path = root / "params.yaml"
    profile = read_yaml(path).get("profile") if path.is_file() else None
    if not cells or not profile:
        yield
        return
    from pipeline.tracking import end_sweep, start_sweep
    from pipeline.tracking.sweeps import PAGE, VARIABLE

    tags = {"stages": str(len(sweep.to_run)), "prefect": os.environ.get(PAGE, "")}
    run_id = start_sweep(str(profile), f"sweep of {len(cells)} stages", tags)
    os.environ[VARIABLE] = run_id
    status = "KILLED"
    try:
        yield
        status = "FAILED" if failed(sweep) else "FINISHED"
    finally:
        del os.environ[VARIABLE]
        end_sweep(run_id, status)


def failed(sweep: Sweep) -> bool:
    return bool(sweep.ended("failed", "not run", "stopped"))


def selected(options: Mapping[str, Any]) -> Options:
    return Options(options["tables"], options["cells"], options["seeds"])


def check(options: Mapping[str, Any]) -> None:
    """Refuse numbers that make no sense.

    Raises:
        InputError: naming the option.
    """
    for name, least in (("parallel", 1), ("retries", 0)):
        if options[name] is not None and options[name] < least:
            raise InputError(f"--{name} {options[name]}: expected at least {least}")
