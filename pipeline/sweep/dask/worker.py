"""What a Dask worker does for a sweep: one cell, in the worker's own clone of the repository.

Its clone is VMUNET_CLONE, else the folder that the worker was started in. There it brings the
cell's inputs from the DVC remote, by the hashes that the sweep sends along; makes the fingerprints
of its own code; compares every dependency with the sweep's; runs the stage's own command; commits
the outputs to the clone's cache and pushes them. The clone's dvc.lock stays as git has it: the
sweep's is the record.

The command ends with the worker, however that ends (`pipeline/sweep/processes.py`), and soon after
the sweep has lost interest: after Ctrl-C there, or its death.
"""

import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.sweep.devices import THREADS
from pipeline.sweep.processes import Processes, tail
from pipeline.sweep.record import NO_REMOTE, Outputs, Record, Verdict, has_remote
from pipeline.sweep.stage_runner import log_of
from vmunet.errors import InputError

OWNER = Path(".sweep") / "owner"  # in the sweep's own clone, the sweep that works in it
LOOK_SECONDS = 0.5
NO_DIFF = (":(exclude)dvc.lock", ":(exclude,glob)**/.gitignore")  # DVC writes these


@dataclass(frozen=True)
class CloneState:
    """What a clone must share with the sweep's to work for it.

    Attributes:
        sweep: the sweep's name, any.
        revision: git's commit.
        changes: SHA-256 of what is not committed.
    """

    sweep: str
    revision: str
    changes: str


@dataclass(frozen=True)
class CellOrder:
    """A cell to run.

    Attributes:
        sweep: the sweep's name.
        name: the stage's.
        hashes: of its dependencies.
        inputs: outputs of the stages that it needs, by their names.
        environment: more environment variables for its command.
    """

    sweep: str
    name: str
    hashes: Mapping[str, Any]
    inputs: Mapping[str, Outputs]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CellResult:
    """How a cell ended.

    Attributes:
        status: its command's exit status, negative for a signal.
        outputs: as dvc.lock has them, if it ended well.
        output: the end of what its command wrote.
    """

    status: int
    outputs: Outputs = ()
    output: bytes = b""


class RefusedError(InputError):
    """This clone is not fit for the sweep."""


def clone() -> Path:
    """The worker's clone."""
    return Path(os.environ.get("VMUNET_CLONE") or ".").absolute()


def state_of_clone(root: Path, sweep: str) -> CloneState:
    """The state of a clone's code and params."""

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else b""

    changes = git("diff", "HEAD", "--no-ext-diff", "--no-color", "--", ".", *NO_DIFF)
    return CloneState(sweep, git("rev-parse", "HEAD").decode().strip(), sha256(changes).hexdigest())


def inspect(wanted: CloneState) -> str:
    """Why this worker cannot work for a sweep, in a sentence; nothing if it can."""
    root = clone()
    here = f"{socket.gethostname()}:{root}"
    if not (root / ".dvc").is_dir() or not (root / "dvc.yaml").is_file():
        return (
            f"{here} is no clone of this repository: start the worker in one, or name it in "
            "VMUNET_CLONE"
        )
    owner = root / OWNER
    if owner.exists() and owner.read_text() == wanted.sweep:
        return f"{here} is the clone that the sweep runs in: give the worker one of its own"
    mine = state_of_clone(root, wanted.sweep)
    if mine.revision != wanted.revision:
        ours, theirs = wanted.revision[:12] or "no commit", mine.revision[:12] or "no commit"
        return f"{here} is at {theirs}, the sweep's clone at {ours}: bring both to one commit"
    if mine.changes != wanted.changes:
        return (
            f"{here} has other uncommitted changes than the sweep's clone: commit them and bring "
            "both to one commit"
        )
    if not has_remote(root):
        return f"{here} has {NO_REMOTE}"
    return ""


def run_cell(order: CellOrder) -> CellResult:
    """Run a cell in this worker's clone and push its outputs, to be called as a Dask task.

    Raises:
        RefusedError: code, params or data here are not the sweep's.
        InputError: the command made none of an output, or the disk is full.
        InputsChangedError: a dependency changed while it ran.
        RemoteError: the remote did not give or take something.
    """
    root, name = clone(), order.name
    record = record_of(root, order.sweep)
    if name not in record.stages or not order.inputs.keys() <= set(record.stages):
        raise RefusedError(f"{socket.gethostname()}:{root} declares no {name}")
    with own_lock(root, name) as lock:
        for needed, outputs in order.inputs.items():
            record.bring(needed, outputs)
        refuse_if_different(record, order)
        verdict = record.begin(name)
        if verdict is Verdict.RUN:
            try:
                status = run_command(record, order, lock)
                if status:
                    return CellResult(status, output=tail(log_of(root, name)))
                record.finish(name)
            finally:
                record.drop(name)
        record.push(name)
        return CellResult(0, record.hashes_of_outputs(name), tail(log_of(root, name)))


@lru_cache(maxsize=1)
def record_of(root: Path, sweep: str) -> Record:
    """The clone's stages, read once for a sweep."""
    record = Record(root, writes_lock=False)
    record.share()
    return record


def refuse_if_different(record: Record, order: CellOrder) -> None:
    """Compare the hash of each dependency, code and params too, with the sweep's."""
    mine = record.inputs(order.name, afresh=True)
    differing = [
        path for path in {**mine, **order.hashes} if mine.get(path) != order.hashes.get(path)
    ]
    if differing:
        raise RefusedError(
            f"{socket.gethostname()}:{record.root} differs from the sweep's clone in "
            f"{', '.join(differing)}"
        )


def run_command(record: Record, order: CellOrder, lock: int) -> int:
    """The exit status of the stage's command."""
    commands, options = record.command(order.name)
    log = log_of(record.root, order.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    threads, wanted = of_this_task()
    threads_of_this = dict.fromkeys(THREADS, str(threads))
    options["env"] |= {"PYTHONUNBUFFERED": "1", **threads_of_this, **order.environment}
    processes = Processes([lock])
    try:
        with open(log, "wb") as file, ending(processes, wanted):
            return processes.run(commands, options, file)
    finally:
        processes.close()


def of_this_task() -> tuple[int, Callable[[], bool]]:
    """The worker's threads, all of which are the cell's; and whether its result is still wanted."""
    from distributed import get_worker
    from distributed.core import Status

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        live = worker.status in (Status.running, Status.paused, Status.closing_gracefully)
        return live and task is not None and task.state == "executing"

    return worker.state.nthreads, wanted


@contextmanager
def ending(processes: Processes, wanted: Callable[[], bool]) -> Iterator[None]:
    """End the processes as soon as their result is not wanted any more."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if not wanted():
                processes.stop()
                return

    thread = threading.Thread(target=look, name="wanted", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def own_lock(root: Path, name: str) -> Iterator[int]:
    """A cell's lock in this clone, which its commands share: none is left when it is free."""
    path = log_of(root, name).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
