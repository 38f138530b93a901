"""The work of a Dask worker for a sweep: run one cell in the worker's own clone of the repository.

The worker's clone is VMUNET_CLONE, or the folder in which the worker was started. There the worker
fetches the cell's inputs from the DVC remote, by the hashes that the sweep sends; makes the
fingerprints of its own code; compares every dependency with the sweep's; runs the stage's command;
commits the outputs to the clone's cache and pushes them. It does not change the clone's dvc.lock,
because the sweep's dvc.lock is the record.

The command ends when the worker ends, for whatever reason (`pipeline/sweep/processes.py`), and soon
after the sweep was stopped with Ctrl-C or has died.
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

from pipeline.dvc.record import Record, Verdict
from pipeline.dvc.remote import NO_REMOTE, Outputs, has_remote
from pipeline.sweep.devices import THREADS
from pipeline.sweep.processes import Processes, tail
from pipeline.sweep.stage_runner import log_of
from vmunet.errors import InputError
from vmunet.files import open_log

OWNER = Path(".sweep") / "owner"  # in the sweep's own clone: the id of the sweep
LOOK_SECONDS = 0.5
NO_DIFF = (":(exclude)dvc.lock", ":(exclude,glob)**/.gitignore")  # DVC writes these


@dataclass(frozen=True)
class CloneState:
    """The state in which a clone must equal the sweep's clone to work for the sweep.

    Attributes:
        sweep: the sweep's id, a random name.
        revision: git's commit.
        changes: SHA-256 of the uncommitted changes.
    """

    sweep: str
    revision: str
    changes: str


@dataclass(frozen=True)
class CellOrder:
    """A cell to run.

    Attributes:
        sweep: the sweep's id.
        name: the stage's name.
        hashes: the hashes of its dependencies.
        inputs: the outputs of the stages that it needs, by the stages' names.
        environment: further environment variables for its command.
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
        outputs: its outputs in the form of dvc.lock, if it ended well.
        output: the last bytes that its command printed.
    """

    status: int
    outputs: Outputs = ()
    output: bytes = b""


class RefusedError(InputError):
    """This clone cannot work for the sweep."""


def clone() -> Path:
    """The folder of the worker's clone."""
    return Path(os.environ.get("VMUNET_CLONE") or ".").absolute()


def state_of_clone(root: Path, sweep: str) -> CloneState:
    """The state of a clone's code and params."""

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else b""

    changes = git("diff", "HEAD", "--no-ext-diff", "--no-color", "--", ".", *NO_DIFF)
    return CloneState(sweep, git("rev-parse", "HEAD").decode().strip(), sha256(changes).hexdigest())


def inspect(wanted: CloneState) -> str:
    """A sentence that says why this worker cannot work for a sweep; '' if it can."""
    root = clone()
    here = f"{socket.gethostname()}:{root}"
    if not (root / ".dvc").is_dir() or not (root / "dvc.yaml").is_file():
        return (
            f"{here} is not a clone of this repository: start the worker in a clone, or name one "
            "in VMUNET_CLONE"
        )
    owner = root / OWNER
    if owner.exists() and owner.read_text() == wanted.sweep:
        return f"{here} is the clone that the sweep runs in: give the worker its own clone"
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
    """Run a cell in this worker's clone and push its outputs; this is the Dask task.

    Raises:
        RefusedError: code, params or data here differ from the sweep's.
        InputError: the command did not make an output, or the disk is full.
        InputsChangedError: a dependency changed while the command ran.
        RemoteError: a transfer from or to the remote failed.
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
    mine = record.inputs(order.name, now=True)
    differing = [
        path for path in {**mine, **order.hashes} if mine.get(path) != order.hashes.get(path)
    ]
    if differing:
        raise RefusedError(
            f"{socket.gethostname()}:{record.root} differs from the sweep's clone in "
            f"{', '.join(differing)}"
        )


def run_command(record: Record, order: CellOrder, lock: int) -> int:
    """Run the stage's command and return its exit status."""
    commands, options = record.command(order.name)
    log = log_of(record.root, order.name)
    threads, wanted = of_this_task()
    thread_variables = dict.fromkeys(THREADS, str(threads))
    options["env"] |= {"PYTHONUNBUFFERED": "1", **thread_variables, **order.environment}
    processes = Processes([lock])
    try:
        with open_log(log, "wb") as file, ending(processes, wanted):
            return processes.run(commands, options, file)
    finally:
        processes.close()


def of_this_task() -> tuple[int, Callable[[], bool]]:
    """The worker's number of threads, all for the cell; and whether the result is still needed."""
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
    """End the processes as soon as their result is no longer needed."""
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
    """A cell's lock in this clone. Its commands share it, so it is free when all have ended."""
    path = log_of(root, name).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
