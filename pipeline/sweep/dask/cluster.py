"""Cells of a sweep on the workers of a Dask cluster, each worker in its own clone.

The workers run only the cells, that is trainings and evaluations. Downloads, preprocessing and the
tables run in the sweep's own clone, which has the internet and the raw data. A worker needs only
the arrays.

Without Dask, a thread or a Prefect task of this process begins a cell's stage, runs its command and
records it (`pipeline/sweep/stage_runner.py`). The same happens here, but the command runs on a
worker, through `distributed.Client`. prefect-dask's task runner is not used, because it would start
the Prefect task itself on the worker: every worker would have to reach Prefect's server, the death
of a worker would start the same task run a second time without Prefect's knowledge, and DVC's
record, which only this process may write, would be written outside of the task. With the way taken
here, Prefect's page shows the same retries, states and logs as for a sweep on one machine.

Each worker has one cell at a time, and Dask sends the cell only to this worker. If Dask loses the
worker, the cell's attempt fails, and another worker makes the next attempt; Dask's own rescheduling
is not used. A worker that joins later gets cells too, after its clone has been inspected.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from pipeline.dvc.record import InputsChangedError, Record
from pipeline.dvc.remote import RemoteError
from pipeline.sweep.dask.worker import (
    OWNER,
    CellOrder,
    CellResult,
    RefusedError,
    inspect,
    run_cell,
    state_of_clone,
)
from pipeline.sweep.stage_runner import StageError
from vmunet.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

ANSWER_SECONDS = 10
LOOK_SECONDS = 1.0
SENT_ALONG = (
    "MLFLOW_TRACKING_URI",
    "VMUNET_SWEEP",
    "VMUNET_SWEEP_PAGE",
    "VMUNET_MICRO_BATCH",
    "VMUNET_STEP",
    "VMUNET_MLFLOW_MODEL",
)


def connect(address: str) -> "Client":
    """A client of the scheduler at this address.

    Raises:
        InputError: Dask is not installed, or no scheduler answers within 10 s.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--runner dask needs Dask: pip install -e '.[cluster]'") from None
    if not address:
        raise InputError("--runner dask needs the scheduler's address: --address tcp://HOST:8786")
    try:
        return Client(address, timeout=ANSWER_SECONDS, set_as_default=False, name="vmunet-sweep")
    except (OSError, ValueError, TypeError) as error:
        why = "no Dask scheduler answers there" if isinstance(error, OSError) else "not an address"
        raise InputError(f"--address {address}: {why}; expected tcp://HOST:8786") from None


def leave(client: "Client") -> None:
    """Close the client; the cluster continues without it."""
    with suppress(Exception):  # its scheduler may have ended
        client.close(timeout=ANSWER_SECONDS)


class Cluster:
    """The workers and their clones; sends cells to them and fetches the results.

    Args:
        client: a client of the scheduler.
        record: the sweep's stages, whose results are shared from now on.
        say: is called with a line for each event.

    Raises:
        InputError: there is no DVC remote, or a worker's clone cannot work for the sweep.
    """

    def __init__(self, client: "Client", record: Record, say: Callable[[str], None]) -> None:
        self._client, self._record, self._say = client, record, say
        record.share()
        self._sweep = uuid4().hex
        self._state = state_of_clone(record.root, self._sweep)
        (record.root / OWNER).write_text(self._sweep)
        self._environment = environment_for_cells(say)
        self._change = threading.Condition()
        self._present: set[str] = set()
        self._free: set[str] = set()
        self._refused: dict[str, str] = {}
        self._offered: set[str] = set()
        self._pushing: dict[str, threading.Lock] = {}
        self._gone = ""
        self._closing = threading.Event()
        self._look(self._refuse_sweep)
        if not self._present:
            say("the scheduler has no workers yet: waiting for the first")
        self._thread = threading.Thread(target=self._keep_looking, name="workers", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        count = len(self._present)
        return f"{count} Dask worker{'' if count == 1 else 's'}"

    @property
    def width(self) -> int:
        """The number of workers, at least 1."""
        return max(1, len(self._present))

    def run(
        self,
        name: str,
        started: Callable[[str], None],
        log: IO[bytes],
        more: Mapping[str, str] | None = None,
    ) -> int:
        """Run a begun stage's command on a worker, fetch its outputs and return its exit status.

        `more` are environment variables of this attempt.

        Raises:
            StageError: the worker was lost, refused the cell or failed.
        """
        record = self._record
        try:
            for needed in record.needs(name):
                self._offer(needed)
            with self._free_worker() as worker:
                started(f" on {worker}")
                result = self._send(name, worker, more or {})
            log.write(result.output)
            log.flush()
            if result.status == 0:
                record.bring(name, result.outputs)
        except (RemoteError, InputError) as error:
            raise StageError(str(error)) from None
        return result.status

    def stop(self) -> None:
        """Give up every running cell; the workers end their commands."""
        self._closing.set()
        with self._change:
            self._change.notify_all()

    def close(self) -> None:
        """Stop watching the workers."""
        self.stop()
        self._thread.join()
        (self._record.root / OWNER).unlink(missing_ok=True)

    def _offer(self, name: str) -> None:
        """Push the outputs of a stage that a cell needs, unless this sweep has already done so."""
        with self._change:
            lock = self._pushing.setdefault(name, threading.Lock())
        with lock:
            if name not in self._offered:
                self._record.push(name)
                self._offered.add(name)

    def _send(self, name: str, worker: str, more: Mapping[str, str]) -> CellResult:
        needed = sorted(self._record.needs(name))
        inputs = {other: self._record.hashes_of_outputs(other) for other in needed}
        hashes = self._record.inputs(name)
        order = CellOrder(self._sweep, name, hashes, inputs, {**self._environment, **more})
        future = self._client.submit(
            run_cell, order, key=f"{name} {uuid4().hex}", workers=[worker], pure=False
        )
        try:
            self._await(future, worker)
            return self._result(future, worker)
        finally:
            future.cancel(force=True)

    def _await(self, future: "Future", worker: str) -> None:
        """Wait until the future is done.

        Raises:
            StageError: it cannot end: the sweep stops, or the worker or the scheduler was lost.
        """
        future.add_done_callback(lambda _: self._notify())
        with self._change:
            while not future.done():
                if self._closing.is_set():
                    raise StageError("stopped", final=True)
                if self._gone:
                    raise StageError(self._gone, final=True)
                if worker not in self._present:
                    raise StageError(f"its worker {worker} was lost")
                self._change.wait(LOOK_SECONDS)

    def _result(self, future: "Future", worker: str) -> CellResult:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        try:
            result = future.result()
            assert isinstance(result, CellResult)
            return result
        except RefusedError as error:
            self._refuse(worker, str(error))
            raise StageError(str(error)) from None
        except InputsChangedError as error:
            raise StageError(str(error), final=True) from None
        except (InputError, RemoteError) as error:
            raise StageError(str(error)) from None
        except KilledWorker:
            raise StageError(f"its worker {worker} was lost") from None
        except FutureCancelledError:
            raise StageError("the Dask scheduler was lost", final=True) from None
        except Exception as error:
            raise StageError(f"on {worker}: {type(error).__name__}: {error}") from error

    @contextmanager
    def _free_worker(self) -> Iterator[str]:
        """Wait for a worker that has no cell, and reserve it."""
        with self._change:
            while True:
                if self._closing.is_set():
                    raise StageError("stopped", final=True)
                if self._gone or (self._present and self._present <= self._refused.keys()):
                    reason = self._gone or next(iter(self._refused.values()))
                    raise StageError(reason, final=True)
                if self._free:
                    break
                self._change.wait(LOOK_SECONDS)
            worker = min(self._free)
            self._free.discard(worker)
        try:
            yield worker
        finally:
            with self._change:
                if worker in self._present and worker not in self._refused:
                    self._free.add(worker)
                    self._change.notify_all()

    def _keep_looking(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            try:
                self._look(self._refuse)
            except Exception as error:
                self._gone = f"the Dask scheduler was lost: {' '.join(str(error).split())[:200]}"
            self._notify()
            if self._gone:
                return

    def _look(self, refuse: Callable[[str, str], None]) -> None:
        """List the workers and inspect the new ones."""
        present = set(self._client.nthreads())
        answers = self._inspect(sorted(present - self._present - self._refused.keys()))
        # A worker that did not answer is asked again if the scheduler still lists it.
        present -= {worker for worker, answer in answers.items() if is_unanswered(answer)}
        new = sorted(present & answers.keys())
        problems = {worker: problem(answers[worker]) for worker in new}
        with self._change:
            lost = self._present - present
            self._present = present
            self._free = (self._free & present) | {w for w in new if not problems[w]}
        for worker in new:
            if problems[worker]:
                refuse(worker, f"worker {worker}: {problems[worker]}")
        for worker in sorted(lost):
            left = f"{len(present)} left" if present else "none is left: waiting for one"
            self._say(f"worker {worker} was lost, {left}")

    def _inspect(self, workers: list[str]) -> dict[str, Any]:
        """The answer of each worker about its clone, or the exception of asking it."""
        if not workers:
            return {}
        return dict(self._client.run(inspect, self._state, workers=workers, on_error="return"))

    def _refuse(self, worker: str, reason: str) -> None:
        with self._change:
            self._refused[worker] = reason
            self._free.discard(worker)
        self._say(f"not used: {reason}")

    def _refuse_sweep(self, worker: str, reason: str) -> None:
        raise InputError(reason)

    def _notify(self) -> None:
        with self._change:
            self._change.notify_all()


def is_unanswered(answer: Any) -> bool:
    """Whether a worker could not be reached; missing files are errors of `inspect` itself."""
    errors_of_inspect = (FileNotFoundError, PermissionError)
    return isinstance(answer, OSError) and not isinstance(answer, errors_of_inspect)


def problem(answer: Any) -> str:
    """The answer of `inspect`, or why the worker could not be asked."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, ImportError):
        return f"it cannot import the pipeline ({answer}): start it in its clone's environment"
    return f"it cannot be asked: {type(answer).__name__}: {answer}"


def environment_for_cells(say: Callable[[str], None]) -> dict[str, str]:
    """The environment variables that the cells get from here, such as MLflow's address."""
    values = {name: value for name in SENT_ALONG if (value := os.environ.get(name))}
    if not values.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://")):
        # A store on this machine, and a run in it: the workers cannot use them.
        for name in ("MLFLOW_TRACKING_URI", "VMUNET_SWEEP"):
            values.pop(name, None)
        say(
            "warning: MLFLOW_TRACKING_URI names no server here: unless the workers have one, each "
            "clone keeps its runs in its own mlflow.db"
        )
    return values
