"""One stage of a sweep from start to end: prepare it, run it, record it, and report the outcome."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline.dvc.code_stage import CodeError
from pipeline.dvc.record import InputsChangedError, Record, Verdict
from pipeline.dvc.remote import RemoteError
from pipeline.stage import OUT_OF_MEMORY, WRONG_INPUT
from pipeline.sweep.devices import Devices
from pipeline.sweep.processes import Processes, last_lines, reason
from pipeline.sweep.selection import trains_or_evaluates
from vmunet.errors import InputError
from vmunet.files import open_log

LOGS = Path(".sweep") / "logs"
MICRO_BATCH = "VMUNET_MICRO_BATCH"
ALONE = "speed@"  # these stages measure time: no other stage may run meanwhile


@dataclass(frozen=True)
class StageOutcome:
    """How a stage ended, or its present state.

    Attributes:
        name: the stage's name.
        state: running, retrying, done, restored (from the run-cache), unchanged, failed, not run (a
            stage that it needs failed), stopped.
        began: the time of the last attempt's start, of the monotonic clock, s.
        where: the machine or the GPU in words, such as ` on GPU 0`; None before the command starts.
        seconds: the duration of the last attempt.
        attempts: the number of times that its command was started.
        epoch, loss, mlflow_run_id: values of a training's run.json.
        reason: why the stage failed.
        lines: the last lines of its log if it failed.
    """

    name: str
    state: str
    began: float = 0.0
    where: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    epoch: int | None = None
    loss: float | None = None
    mlflow_run_id: str = ""
    reason: str = ""
    lines: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        """Why the stage failed, with the last line that its command printed."""
        why = self.reason.removeprefix(f"{self.name}: ")
        ended_badly = why.startswith(("exit status", "killed by"))  # see `processes.reason`
        last = self.lines[-1].removeprefix("error: ") if self.lines and ended_badly else ""
        return f"{why}: {last}" if last and not last.startswith("--- ") else why


class StageError(Exception):
    """A stage failed; it is tried again unless the error is `final`."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class OtherMachines(Protocol):
    """Machines that run stages in their own clones."""

    def run(
        self, name: str, started: Callable[[str], None], log: IO[bytes], more: Mapping[str, str]
    ) -> int:
        """Run a stage's command there, copy its outputs to here and return its exit status.

        Args:
            started: is called at the start with the machine in words, such as ` on HOST`.
            log: receives the command's output.
            more: further environment variables of the command.
        """

    def stop(self) -> None:
        """End every command there."""


class StageRunner:
    """Runs stages; every thread may call it.

    Args:
        outcomes: how each stage ended; this class writes it.
        machines: they run the trainings and evaluations. This machine runs the other stages, and
            without `machines` all of them.
    """

    def __init__(
        self,
        record: Record,
        processes: Processes,
        devices: Devices,
        outcomes: dict[str, StageOutcome],
        say: Callable[[str], None],
        machines: OtherMachines | None = None,
    ) -> None:
        self.record, self.devices, self.outcomes = record, devices, outcomes
        self.stopping = threading.Event()
        self._processes, self._say, self._machines = processes, say, machines
        self._micro_batch: dict[str, str] = {}  # for stages that ran out of memory

    def attempt(self, name: str, retries: int = 0) -> StageOutcome:
        """Run the stage unless it has become up to date.

        Raises:
            StageError: it failed; the message says why. The caller tries again up to `retries`
                times; a training then continues from its checkpoint.
        """
        log, before = log_of(self.record.root, name), self.outcomes.get(name)
        started = time.monotonic()
        attempts = 1 + (before.attempts if before else 0)
        self.outcomes[name] = StageOutcome(name, "running", began=started, attempts=attempts)
        try:
            state_at_end = self._run(name, attempts)
        except BaseException as error:
            final = not isinstance(error, StageError) or error.final or attempts > retries
            state = "stopped" if self.stopping.is_set() else "failed" if final else "retrying"
            outcome = self.outcomes[name] = replace(
                self.outcomes[name],
                state=state,
                seconds=time.monotonic() - started,
                reason=str(error) or type(error).__name__,
                lines=tuple(last_lines(log)) if isinstance(error, StageError) else (),
            )
            if state == "retrying":
                self._say(f"{name}  {outcome.cause}; trying again; log: {LOGS / log.name}")
            raise
        run = run_json(self.record, name)
        self.outcomes[name] = replace(
            self.outcomes[name],
            state=state_at_end,
            seconds=time.monotonic() - started,
            epoch=run.get("epoch"),
            loss=run.get("selection_loss"),
            mlflow_run_id=run.get("mlflow_run_id", ""),
        )
        return self.outcomes[name]

    def stop(self) -> None:
        """End every command; no stage is tried again."""
        self.stopping.set()
        if self._machines is not None:
            self._machines.stop()
        self._processes.stop()

    def _run(self, name: str, attempt: int) -> str:
        if self.stopping.is_set():
            raise StageError("stopped", final=True)
        try:
            verdict = self.record.begin(name)
        except (CodeError, RemoteError) as error:
            raise StageError(str(error)) from None
        except InputError as error:
            raise StageError(str(error), final=True) from None
        if verdict is not Verdict.RUN:
            return verdict.value
        try:
            status = self._command(name, attempt)
            if self.stopping.is_set() and status:
                raise StageError("stopped", final=True)
            if status == OUT_OF_MEMORY:
                raise self._out_of_memory(name)
            if status:
                raise StageError(reason(status), final=status == WRONG_INPUT)
            self.record.finish(name)
        except InputsChangedError as error:
            raise StageError(str(error), final=True) from None
        except InputError as error:
            raise StageError(str(error)) from None
        finally:
            self.record.drop(name)
        return "done"

    def _out_of_memory(self, name: str) -> StageError:
        """Let the next attempt take the number of samples at once that the stage's last line names.

        That attempt starts from the first epoch: another micro batch is another run.
        """
        lines = last_lines(log_of(self.record.root, name))
        attempt = "\n".join(lines).rpartition("\n--- ")[2]
        sizes = re.findall(rf"{MICRO_BATCH}=(\d+)", attempt)
        if not sizes:
            return StageError("out of memory, even with one sample at once", final=True)
        self._micro_batch[name] = sizes[-1]
        return StageError(f"out of memory; {sizes[-1]} samples at once from now on")

    def _command(self, name: str, attempt: int) -> int:
        log = log_of(self.record.root, name)
        more = {MICRO_BATCH: self._micro_batch[name]} if name in self._micro_batch else {}
        with open_log(log) as file:

            def started(where: str) -> None:
                again = f" (attempt {attempt})" if attempt > 1 else ""
                file.write(f"--- {time.strftime('%F %T')}{where}{again}\n".encode())
                file.flush()
                self.outcomes[name] = replace(self.outcomes[name], where=where)

            if self._machines is not None and trains_or_evaluates(name):
                return self._machines.run(name, started, file, more)
            commands, options = self.record.command(name)
            with self.devices.reserve(alone=name.startswith(ALONE)) as environment:
                gpu = environment.get("CUDA_VISIBLE_DEVICES")
                started(f" on GPU {gpu}" if gpu else "")
                options["env"] = stage_environment(options, {**environment, **more})
                return self._processes.run(commands, options, file)


def stage_environment(options: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a stage; its log shows each line at once."""
    return {**options["env"], "PYTHONUNBUFFERED": "1", **more}


def log_of(root: Path, name: str) -> Path:
    """The file with the output of a stage's command."""
    return root / LOGS / f"{name.replace('/', '_')}.log"


def run_json(record: Record, name: str) -> dict[str, Any]:
    """The content of a training's last run.json; empty if there is none."""
    paths = [record.root / out for out in record.outputs(name) if out.name == "run.json"]
    return read_json(paths[0]) if paths else {}


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
