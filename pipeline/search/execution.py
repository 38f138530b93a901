"""A search from its options to its report: trials in parallel, each in a separate process."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from optuna.trial import FrozenTrial, TrialState

from pipeline.config.params import load_params
from pipeline.search.options import SearchOptions
from pipeline.search.report import SearchReport, write_report
from pipeline.search.study import SharedStudy, study_facts
from pipeline.stage import WRONG_INPUT
from pipeline.sweep.devices import Devices
from pipeline.sweep.processes import Processes, last_lines, reason
from pipeline.sweep.stage_runner import StageError, StageOutcome
from pipeline.sweep.threads import JobPool, MakePool, Threads
from pipeline.tracking.plain import PlainRun
from vmunet.errors import InputError
from vmunet.files import open_log

MOST_FAILURES = 3  # if no trial ended well: then the trials' settings are not the cause
MLFLOW_SECONDS = 20.0
TRIAL = [sys.executable, "-m", "stages.search_trial"]


def run_search(
    options: SearchOptions, say: Callable[[str], None], make_pool: MakePool = Threads
) -> bool:
    """Search and write the report; return whether no trial ended well.

    Args:
        say: is called with a line for each event.
        make_pool: makes the pool that runs the trials in parallel.

    Raises:
        InputError: an option, params.yaml or the study's journal has a mistake.
    """
    if os.name != "posix":
        raise InputError("a search needs process groups and file locks as Linux and macOS have")
    params, devices = load_params(), Devices(options.parallel, options.gpus)
    facts = study_facts(params, options.view, options.cell, options.protocol, options.epochs)
    study = SharedStudy(options.study_name, facts)
    if not study.enqueue_own(params):
        say(f"the settings of {facts.cell} lie outside the search space: no trial tries them")
    done = len(ended_trials(study))
    say(f"study {study.name}: {done} of {options.trials} trials done; {devices}")
    trials = Trials(study, devices, options.trials, options.timeout, say)
    try:
        trials.run(make_pool(devices.width, 0))
    finally:
        say(closing_lines(write_report(study, params), trials))
    return study.best() is None


class Trials:
    """The trials of a study that this process runs."""

    def __init__(
        self,
        study: SharedStudy,
        devices: Devices,
        total: int,
        timeout: float | None,
        say: Callable[[str], None],
    ) -> None:
        self.study, self._devices, self._total, self._say = study, devices, total, say
        self._deadline = time.monotonic() + timeout if timeout else float("inf")
        self._processes = Processes([study.life])
        self._stopping = threading.Event()
        self.failed: list[int] = []
        self.ended = 0

    def run(self, pool: JobPool) -> None:
        """Start trials until the study has enough; Ctrl-C stops and requeues the running ones."""
        done: SimpleQueue[int] = SimpleQueue()
        running: set[int] = set()
        tracker: PlainRun | None = None

        def start() -> None:
            while len(running) < self._devices.width and self._more():
                number = self.study.claim(self._total)
                if number is None:
                    return
                running.add(number)
                pool.submit(
                    f"trial-{number}@{self.study.name}",
                    lambda number=number: self._attempt(number),  # type: ignore[misc]
                    lambda number=number: done.put(number),  # type: ignore[misc]
                )

        status = "KILLED"
        try:
            tracker = self._tracker()
            start()
            while running:
                number = done.get()
                running.discard(number)
                self._settle(number, tracker)
                start()
            status = "FINISHED"
        except BaseException:
            self._stopping.set()
            self._processes.stop()
            raise
        finally:
            pool.shut_down()
            while not done.empty():
                self._settle(done.get(), tracker)
            self._processes.close()
            self.study.leave()
            if tracker is not None:
                tracker.finish(status)

    def _more(self) -> bool:
        if time.monotonic() > self._deadline:
            return False
        return self.ended > 0 or len(self.failed) < MOST_FAILURES

    def _attempt(self, number: int) -> StageOutcome:
        """Run a trial's process; a thread of the pool calls this.

        Raises:
            StageError: the process failed; the study has the trial as failed, or as queued again.
        """
        name, log = f"trial-{number}", self.log(number)
        status = -1
        if not self._stopping.is_set():
            with self._devices.reserve() as environment, open_log(log) as file:
                options = {"env": {**os.environ, "PYTHONUNBUFFERED": "1", **environment}}
                command = [*TRIAL, self.study.name, str(number)]
                status = self._processes.run([command], options, file)
        trial = self.study.trial(number)
        if trial.state is TrialState.COMPLETE:
            return StageOutcome(name, "done", epoch=trial.user_attrs["epoch"], loss=trial.value)
        if trial.state is TrialState.PRUNED:
            return StageOutcome(name, "pruned")
        if self._stopping.is_set():
            self.study.give_back(number)
            raise StageError("stopped", final=True)
        lines = last_lines(log)
        why = (
            lines[-1].removeprefix("error: ") if status == WRONG_INPUT and lines else reason(status)
        )
        self.study.fail(number, why)
        raise StageError(why, final=True)

    def log(self, number: int) -> Path:
        """The file with the output of a trial."""
        return self.study.folder / "logs" / f"trial-{number}.log"

    def _settle(self, number: int, tracker: PlainRun | None) -> None:
        trial, best = self.study.trial(number), self.study.best()
        if trial.state is TrialState.RUNNING:  # the pool could not start it
            if self._stopping.is_set():
                self.study.give_back(number)
            else:
                self.study.fail(number, "its command could not be started")
            trial = self.study.trial(number)
        if trial.user_attrs.get("interrupted"):
            self._say(f"trial {number}  stopped")
            return
        if trial.state is TrialState.FAIL:
            self.failed.append(number)
        else:
            self.ended += 1
        count = len(ended_trials(self.study))
        self._say(f"{line_on(trial, best)}  [{count}/{self._total}]")
        metrics = {"best_loss": best.value} if best and best.value is not None else {}
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            metrics["loss"] = trial.value
        if metrics and tracker is not None:
            tracker.log(metrics, step=number)

    def _tracker(self) -> PlainRun:
        """The study's MLflow run, which all processes of the study share, also later ones."""
        facts, study = self.study.facts, self.study.study
        known = study.user_attrs.get("mlflow_run_id", "")
        keys = ("view", "cell", "protocol", "epochs", "seed")
        values = {key: getattr(facts, key) for key in keys}
        values |= {f"space.{d.name}": f"{d.low} to {d.high}" for d in facts.dimensions}
        tags = {"study": self.study.name, "kind": "search", "data_hash": facts.data}
        tracker = PlainRun(facts.profile, f"search {self.study.name}", values, tags, known)
        # The trials wait for its id, which is their parent's, but not long: the store may be down.
        run_id = tracker.opened(MLFLOW_SECONDS)
        if run_id and run_id != known:
            study.set_user_attr("mlflow_run_id", run_id)
        return tracker


def ended_trials(study: SharedStudy) -> list[FrozenTrial]:
    """The trials that have ended, without those that were interrupted."""
    trials = study.trials()
    return [t for t in trials if t.state.is_finished() and not t.user_attrs.get("interrupted")]


def line_on(trial: FrozenTrial, best: FrozenTrial | None) -> str:
    """The line that reports a trial which has ended."""
    name = f"trial {trial.number}"
    if trial.state is TrialState.COMPLETE:
        mark = ", the best so far" if best and best.number == trial.number else ""
        return f"{name}  done: loss {trial.value:.4f} in epoch {trial.user_attrs['epoch']}{mark}"
    why = trial.user_attrs.get("reason", "")
    if trial.state is TrialState.PRUNED:
        last = trial.last_step
        at = f" after epoch {last}, loss {trial.intermediate_values[last]:.4f}" if last else ""
        return f"{name}  pruned{at}{': ' if why else ''}{why}"
    return f"{name}  failed: {why}"


def closing_lines(report: SearchReport, trials: Trials) -> str:
    """The last lines of a search: failed trials, the best trial, its cell, the report's path."""
    lines = []
    for number in trials.failed:
        lines.append(f"trial {number} failed; the last lines of {trials.log(number)}:")
        with suppress(OSError):
            lines += [f"    {line}" for line in last_lines(trials.log(number), 5)]
    if not trials.ended and len(trials.failed) >= MOST_FAILURES:
        lines.append(f"stopped: the first {len(trials.failed)} trials failed")
    parts = [*lines, report.best, report.cell.rstrip("\n"), f"report: {report.path}"]
    return "\n".join(filter(None, parts))
