"""A sweep from its options to its summary, whatever runs the stages side by side."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import read_yaml
from pipeline.sweep.devices import Devices
from pipeline.sweep.fan_out import Runner, Sweep, Threads, one_at_a_time, plan, run, summary
from pipeline.sweep.selection import CELL, Options
from vmunet.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

    from pipeline.sweep.dask.cluster import Cluster

RUNNERS = ("local", "dask")
MakeRunner = Callable[[int, int], Runner]


def carry_out(
    options: Mapping[str, Any],
    say: Callable[[str], None],
    make_runner: MakeRunner = Threads,
    root: Path = Path("."),
) -> bool:
    """Plan, run and summarise a sweep; whether anything failed.

    Args:
        options: those of `vmunet sweep`: tables, cells, seeds, parallel, gpus, retries,
            runner, address.
        say: told each event, in a line.
        make_runner: gives a runner for a width and a number of retries.

    Raises:
        InputError: an option, params.yaml or dvc.yaml has a mistake.
    """
    if os.name != "posix":
        raise InputError("a sweep needs process groups and file locks as Linux and macOS have them")
    parallel = options["parallel"]
    with dask(options) as client, one_at_a_time(root, say) as lock:
        devices = Devices(parallel, options["gpus"])
        sweep = plan(selected(options), root, say)
        if not sweep.to_run:
            say(summary(sweep))
            return False
        counts = f"{len(sweep.to_run)} stages to run, {sweep.up_to_date} up to date"
        shared = client is None or os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
        with in_mlflow(sweep, root, shared), cluster(client, sweep, say) as workers:
            if workers is not None:
                devices = Devices(parallel or workers.width, "none")
            say(f"{counts}; {devices if workers is None else workers}")
            runner = make_runner(devices.width, options["retries"])
            try:
                run(sweep, runner, devices, lock, options["retries"], say, workers)
            finally:
                say(summary(sweep))
        return failed(sweep)


@contextmanager
def in_mlflow(sweep: Sweep, root: Path, shared: bool) -> Iterator[None]:
    """A run of MLflow for the sweep, beneath which its cells log theirs.

    Where nothing is trained, or the cells log to other stores than this one (not `shared`), there
    is none; where the store is away, cells log without a parent.
    """
    cells = [name for name in sweep.to_run if CELL.fullmatch(name)]
    path = root / "params.yaml"
    profile = read_yaml(path).get("profile") if path.is_file() else None
    if not (cells and profile and shared):
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


@contextmanager
def dask(options: Mapping[str, Any]) -> Iterator["Client | None"]:
    """A client of the Dask scheduler, where the cells are to run on its workers."""
    if options.get("runner", "local") != "dask":
        yield None
        return
    from pipeline.sweep.dask.cluster import connect, leave

    client = connect(options["address"])
    try:
        yield client
    finally:
        leave(client)


@contextmanager
def cluster(
    client: "Client | None", sweep: Sweep, say: Callable[[str], None]
) -> Iterator["Cluster | None"]:
    """The client's workers, made ready for the sweep."""
    if client is None:
        yield None
        return
    from pipeline.sweep.dask.cluster import Cluster

    workers = Cluster(client, sweep.record, say)
    try:
        yield workers
    finally:
        workers.close()


def failed(sweep: Sweep) -> bool:
    return bool(sweep.ended("failed", "not run", "stopped"))


def selected(options: Mapping[str, Any]) -> Options:
    return Options(options["tables"], options["cells"], options["seeds"])


def check(options: Mapping[str, Any]) -> None:
    """Refuse numbers, and combinations, that make no sense.

    Raises:
        InputError: naming the option.
    """
    for name, least in (("parallel", 1), ("retries", 0)):
        if options[name] is not None and options[name] < least:
            raise InputError(f"--{name} {options[name]}: expected at least {least}")
    runner, address = options.get("runner", "local"), options.get("address", "")
    if runner not in RUNNERS:
        raise InputError(f"--runner {runner}: expected {' or '.join(RUNNERS)}")
    if address and runner != "dask":
        raise InputError(f"--address {address}: goes with --runner dask")
    if runner == "dask" and options["gpus"] not in ("all", "none"):
        raise InputError(
            f"--gpus {options['gpus']}: a Dask worker has the GPU of its own CUDA_VISIBLE_DEVICES"
        )
