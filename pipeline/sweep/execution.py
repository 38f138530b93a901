"""A sweep from its options to its summary: a stage starts when the stages that it needs are done.

The next sweep can start after a `kill -9` of this one. A watchdog kills the commands
(`pipeline/sweep/processes.py`). The commands hold the clone's lock until the last of them has
ended, and the next sweep waits for this lock. A training continues from its checkpoint.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pipeline.config.yaml_file import read_yaml
from pipeline.dvc.record import Verdict
from pipeline.sweep.console import Say
from pipeline.sweep.devices import Devices
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.plan import ALONE, MEASURED, Schedule, Sweep, measured_seconds, plan_sweep
from pipeline.sweep.processes import Processes
from pipeline.sweep.selection import trains_or_evaluates
from pipeline.sweep.stage_runner import StageOutcome, StageRunner, log_of, stage_environment
from pipeline.sweep.threads import JobPool, MakePool, Threads
from vmunet.errors import InputError
from vmunet.files import whole_file

if TYPE_CHECKING:
    from distributed import Client

    from pipeline.sweep.dask.cluster import Cluster

LOCK = Path(".sweep") / "lock"


def run_sweep(
    options: SweepOptions,
    say: Say,
    make_pool: MakePool = Threads,
    root: Path = Path("."),
) -> bool:
    """Plan, run and summarise a sweep; return whether a stage did not end well.

    Args:
        say: is called with a line for each event.
        make_pool: makes the pool that runs the stages in parallel.

    Raises:
        InputError: an option, params.yaml or dvc.yaml has a mistake.
    """
    if os.name != "posix":
        raise InputError("a sweep needs process groups and file locks as Linux and macOS have them")
    with dask_client(options) as client, one_at_a_time(root, say) as lock:
        devices = Devices(options.parallel, options.gpus)
        sweep = plan_sweep(options, root, say)
        if not sweep.needs:
            from pipeline.tracking.dead import close_dead_runs_if_any

            close_dead_runs_if_any()
            say(sweep_summary(sweep))
            return False
        from pipeline.sweep.display import display  # its imports would slow down a sweep of nothing

        counts = f"{len(sweep.needs)} stages to run, {sweep.up_to_date} up to date"
        shared = client is None or os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
        processes = Processes([lock])  # the commands share the clone's lock
        with closing(processes), closing(sweep.record):
            if client is None:
                prepare(sweep, processes, devices)
            with mlflow_run(sweep, root, shared), dask_cluster(client, sweep, say) as cluster:
                if cluster is not None:
                    devices = Devices(options.parallel, options.gpus, cluster.width)
                say(f"{counts}; {devices if cluster is None else cluster}")
                pool = make_pool(devices.width, options.retries)
                runner = StageRunner(sweep.record, processes, devices, sweep.outcomes, say, cluster)
                with display(sweep, devices.width, runner.stopping.is_set):
                    try:
                        run_stages(sweep, runner, pool, options.retries, say)
                    finally:
                        keep_measured(sweep)
                        for outcome in sweep.outcomes_in("failed"):
                            say(failure(outcome), passing=True)
                        say(sweep_summary(sweep))
        return sweep.incomplete


def prepare(sweep: Sweep, processes: Processes, devices: Devices) -> None:
    """Start the imports that the stages need, while this process prepares other things."""
    commands, options = sweep.record.command(next(iter(sweep.needs)))
    with devices.reserve() as environment:
        processes.prepare(commands[0], {**options, "env": stage_environment(options, environment)})


def run_stages(
    sweep: Sweep,
    runner: StageRunner,
    pool: JobPool,
    retries: int,
    say: Say,
) -> None:
    """Run the stages of a sweep and write how each of them ended to `sweep.outcomes`.

    If this process ends, by Ctrl-C or otherwise except by `kill -9`, it ends the commands first.
    Stages that had not ended are not recorded.
    """
    schedule = Schedule(sweep.needs, sweep.seconds)
    ended: SimpleQueue[str] = SimpleQueue()
    running: set[str] = set()

    def another_may_start() -> bool:
        alone = any(name.startswith(ALONE) for name in running)  # the schedule gives them first
        return len(running) < runner.devices.width and not alone

    def is_up_to_date(name: str) -> bool:
        if name in sweep.out_of_date:
            return False
        try:
            return not sweep.record.changed([name])
        except InputError:  # its own attempt reports it; the others go on
            return False

    def start() -> None:
        while another_may_start() and (name := schedule.next()):
            if is_up_to_date(name):
                sweep.outcomes[name] = StageOutcome(name, Verdict.UNCHANGED.value)
                schedule.done(name)
                continue
            running.add(name)
            pool.submit(
                name,
                lambda name=name: runner.attempt(name, retries),  # type: ignore[misc]
                lambda name=name: ended.put(name),  # type: ignore[misc]
            )

    def settle(name: str) -> None:
        outcome = sweep.outcomes.get(name) or StageOutcome(
            name, "failed", reason="it was never started"
        )
        if outcome.state in ("running", "retrying"):  # the pool stopped trying
            outcome = StageOutcome(name, "failed", reason="it was given up")
        sweep.outcomes[name] = outcome
        if outcome.state in ("failed", "stopped"):
            state = "not run" if outcome.state == "failed" else "stopped"
            for other in schedule.failed(name):
                sweep.outcomes[other] = StageOutcome(other, state, reason=f"needs {name}")
        else:
            schedule.done(name)
        say(line_on(outcome, sweep), passing=outcome.state != "failed")

    try:
        pool.show(sweep)
        start()
        pool.show(sweep)
        while running:
            name = ended.get()
            running.discard(name)
            settle(name)
            start()
            pool.show(sweep)
    except BaseException:
        runner.stop()
        raise
    finally:
        pool.shut_down()
        while not ended.empty():
            settle(ended.get())
        for name in schedule.left:
            sweep.outcomes.setdefault(name, StageOutcome(name, "stopped"))


@contextmanager
def one_at_a_time(root: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the clone's lock, a file descriptor; wait while another sweep of the clone holds it."""
    path = root / LOCK
    path.parent.mkdir(exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            say(f"another sweep of this clone runs (process {file.read().strip()}): waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


@contextmanager
def mlflow_run(sweep: Sweep, root: Path, shared: bool) -> Iterator[None]:
    """An MLflow run for the sweep, the parent of its cells' runs.

    There is none if no cell is trained or evaluated, or if the cells log to other stores than this
    process (`shared` is False). If the store does not answer, cells log without a parent.
    """
    cells = [name for name in sweep.needs if trains_or_evaluates(name)]
    path = root / "params.yaml"
    profile = read_yaml(path).get("profile") if path.is_file() else None
    if not (cells and profile and shared):
        yield
        return
    from pipeline.tracking import end_sweep, start_sweep
    from pipeline.tracking.sweeps import PAGE, VARIABLE

    tags = {"stages": str(len(sweep.needs)), "prefect": os.environ.get(PAGE, "")}
    run_id = start_sweep(str(profile), f"sweep of {len(cells)} stages", tags)
    os.environ[VARIABLE] = run_id
    status = "KILLED"
    try:
        yield
        status = "FAILED" if sweep.incomplete else "FINISHED"
    finally:
        del os.environ[VARIABLE]
        end_sweep(run_id, status)


@contextmanager
def dask_client(options: SweepOptions) -> Iterator["Client | None"]:
    """A client of the Dask scheduler, or None if the cells run on this machine."""
    if options.runner != "dask":
        yield None
        return
    from pipeline.sweep.dask.cluster import connect, leave

    client = connect(options.address)
    try:
        yield client
    finally:
        leave(client)


@contextmanager
def dask_cluster(
    client: "Client | None", sweep: Sweep, say: Callable[[str], None]
) -> Iterator["Cluster | None"]:
    """The client's workers, prepared for the sweep; None without a client."""
    if client is None:
        yield None
        return
    from pipeline.sweep.dask.cluster import Cluster

    cluster = Cluster(client, sweep.record, say)
    try:
        yield cluster
    finally:
        cluster.close()


def keep_measured(sweep: Sweep) -> None:
    """Store the seconds of the stages that ended well in their first attempt."""
    path = sweep.record.root / MEASURED
    seconds = measured_seconds(sweep.record.root)
    seconds |= {o.name: round(o.seconds, 1) for o in sweep.outcomes_in("done") if o.attempts == 1}
    with whole_file(path) as part:
        part.write_text(json.dumps(seconds, indent=1))


def line_on(outcome: StageOutcome, sweep: Sweep) -> str:
    """The line that reports a stage which has ended."""
    failed = outcome.state == "failed"
    line = failure(outcome) if failed else f"{outcome.name}  {outcome.state}"
    if outcome.state == "done":
        line += f" in {outcome.seconds:.1f} s{outcome.where or ''}"
    if outcome.loss is not None:
        line += f", epoch {outcome.epoch}, loss {outcome.loss:.4f}"
    if outcome.reason and not failed:
        line += f": {outcome.reason}"
    return f"{line}  [{sweep.ended}/{len(sweep.needs)}]"


def failure(outcome: StageOutcome) -> str:
    """The line on a stage that failed: why, and where its output is."""
    tries = f"after {outcome.attempts} attempt{'' if outcome.attempts == 1 else 's'}"
    log = f"; log: {log_of(Path(), outcome.name)}" if outcome.where is not None else ""
    return f"{outcome.name}  failed {tries}: {outcome.cause}{log}"


def sweep_summary(sweep: Sweep) -> str:
    """The last lines of a sweep: its counts, and why no tables were made."""
    lines = []
    counts: Mapping[str, int] = {
        state: len(sweep.outcomes_in(state))
        for state in ("done", "restored", "unchanged", "failed", "not run", "stopped")
    }
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines.append(f"{sweep.up_to_date} stages up to date{', ' + words if words else ''}")
    if sweep.left_out:
        lines.append(
            f"tables and report not made: {len(sweep.left_out)} stages outside this selection are "
            "not up to date; `vmunet sweep` runs all stages"
        )
    return "\n".join(lines)
