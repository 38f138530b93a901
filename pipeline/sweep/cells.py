"""One stage of a sweep, start to end: ready, run, recorded; and how it ended."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline.stage import OUT_OF_MEMORY
from pipeline.sweep.dask.exchange import RemoteError
from pipeline.sweep.devices import Devices
from pipeline.sweep.processes import Processes, last_lines, reason
from pipeline.sweep.record import InputsChangedError, Record, Verdict
from pipeline.sweep.schedule import run_json
from pipeline.sweep.selection import CELL
from vmunet.errors import InputError

LOGS = Path(".sweep") / "logs"
MICRO_BATCH = "VMUNET_MICRO_BATCH"


@dataclass(frozen=True)
class Outcome:
    """How a stage ended, or where it is.

    Attributes:
        name: the stage's.
        state: running, done, restored (from the run-cache), unchanged, failed, not run (a stage
            that it needs failed), stopped.
        seconds: of the last attempt.
        attempts: how often its command was started.
        epoch, loss, mlflow_run_id: of a training, from its run.json.
        reason: in words, where it failed.
        lines: the last lines of its log, where it failed.
    """

    name: str
    state: str
    seconds: float = 0.0
    attempts: int = 0
    epoch: int | None = None
    loss: float | None = None
    mlflow_run_id: str = ""
    reason: str = ""
    lines: tuple[str, ...] = ()


class CellError(Exception):
    """A stage failed; it is tried again unless `final`."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Elsewhere(Protocol):
    """Other machines, in clones of their own."""

    def run(
        self, name: str, started: Callable[[str], None], log: IO[bytes], more: Mapping[str, str]
    ) -> int:
        """Run a stage's command there and bring its outputs here; its exit status.

        Args:
            started: to be called with words for the place.
            log: where the command's output goes.
        """

    def stop(self) -> None:
        """End every command there."""


class Cells:
    """Runs stages, from any thread, and keeps how each of them ended in `outcomes`.

    Args:
        elsewhere: where trainings and evaluations run; else, as all other stages, here.
    """

    def __init__(
        self,
        record: Record,
        processes: Processes,
        devices: Devices,
        say: Callable[[str], None],
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.record, self.devices = record, devices
        self.outcomes: dict[str, Outcome] = {}
        self.stopping = threading.Event()
        self._processes, self._say, self._elsewhere = processes, say, elsewhere
        self._micro_batch: dict[str, str] = {}  # of stages that ran out of memory

    def log(self, name: str) -> Path:
        """Where the output of a stage's command goes."""
        return log_of(self.record.root, name)

    def attempt(self, name: str, retries: int = 0) -> Outcome:
        """Run the stage unless it is up to date by now.

        Raises:
            CellError: it failed, and why. A training goes on from its checkpoint at the next
                attempt; `retries` says how many there are in all.
        """
        before = self.outcomes.get(name, Outcome(name, ""))
        started = time.monotonic()
        running = Outcome(name, "running", attempts=before.attempts + 1)
        self.outcomes[name] = running
        try:
            verdict = self._run(name, running.attempts)
        except BaseException as error:
            final = not isinstance(error, CellError) or error.final or running.attempts > retries
            state = "stopped" if self.stopping.is_set() else "failed" if final else "retrying"
            self.outcomes[name] = replace(
                running,
                state=state,
                seconds=time.monotonic() - started,
                reason=str(error) or type(error).__name__,
                lines=tuple(last_lines(self.log(name))) if isinstance(error, CellError) else (),
            )
            if state == "retrying":
                self._say(f"{name}  {error}; trying again")
            raise
        ended = replace(running, state=verdict, seconds=time.monotonic() - started)
        self.outcomes[name] = replace(ended, **self._facts(name))
        return self.outcomes[name]

    def stop(self) -> None:
        """End every command; nothing is tried again."""
        self.stopping.set()
        if self._elsewhere is not None:
            self._elsewhere.stop()
        self._processes.stop()

    def _run(self, name: str, attempt: int) -> str:
        if self.stopping.is_set():
            raise CellError("stopped", final=True)
        try:
            verdict = self.record.begin(name)
        except InputError as error:
            raise CellError(str(error), final=True) from None
        except RemoteError as error:
            raise CellError(str(error)) from None
        if verdict is not Verdict.RUN:
            return verdict.value
        try:
            status = self._command(name, attempt)
            if self.stopping.is_set() and status:
                raise CellError("stopped", final=True)
            if status == OUT_OF_MEMORY:
                raise self._out_of_memory(name)
            if status:
                raise CellError(reason(status))
            self.record.finish(name)
        except InputsChangedError as error:
            raise CellError(str(error), final=True) from None
        except InputError as error:
            raise CellError(str(error)) from None
        finally:
            self.record.drop(name)
        return "done"

    def _out_of_memory(self, name: str) -> CellError:
        """The next attempt takes fewer samples at once, as many as the stage's last words say.

        It starts over: another micro batch is another run.
        """
        own = "\n".join(last_lines(self.log(name))).rpartition("\n--- ")[2]  # of this attempt
        found = re.findall(rf"{MICRO_BATCH}=(\d+)", own)
        if not found:
            return CellError("out of memory, whatever the batch", final=True)
        self._micro_batch[name] = found[-1]
        return CellError(f"out of memory; {found[-1]} samples at once from now on")

    def _command(self, name: str, attempt: int) -> int:
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        more = {MICRO_BATCH: self._micro_batch[name]} if name in self._micro_batch else {}
        with open(log, "ab") as file:

            def started(where: str) -> None:
                again = f" (attempt {attempt})" if attempt > 1 else ""
                self._say(f"{name}  started{where}{again}")
                file.write(f"--- {time.strftime('%F %T')}{where}{again}\n".encode())
                file.flush()

            if self._elsewhere is not None and CELL.fullmatch(name):
                return self._elsewhere.run(name, started, file, more)
            commands, options = self.record.command(name)
            with self.devices.one() as environment:
                gpu = environment.get("CUDA_VISIBLE_DEVICES")
                started(f" on GPU {gpu}" if gpu else "")
                unbuffered = {"PYTHONUNBUFFERED": "1"}
                options["env"] = {**options["env"], **unbuffered, **environment, **more}
                return self._processes.run(commands, options, file)

    def _facts(self, name: str) -> dict[str, Any]:
        """What a training's run.json says of it."""
        run = run_json(self.record, name)
        if not run:
            return {}
        return {
            "epoch": run.get("epoch"),
            "loss": run.get("selection_loss"),
            "mlflow_run_id": run.get("mlflow_run_id", ""),
        }


def log_of(root: Path, name: str) -> Path:
    """Where the output of a stage's command goes."""
    return root / LOGS / f"{name.replace('/', '_')}.log"
