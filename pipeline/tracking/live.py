"""An MLflow run that is logged while its stage runs.

A daemon thread sends to the store, so that a slow store, or one that does not answer, does not
delay an epoch. After the first failure the thread warns; it tries again only once, at the end.
"""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.owners import owner
from pipeline.tracking.dead import try_to_close_dead_runs
from pipeline.tracking.epochs import epoch_line
from pipeline.tracking.header import (
    RunHeader,
    create_run,
    describe_run,
    epochs_of,
    find_run,
    log_metrics,
)
from pipeline.tracking.store import client, explain, milliseconds, warn
from pipeline.tracking.sweeps import parent_tags
from pipeline.tracking.system import Gauge, processor_name, system_sampler

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FINISH_SECONDS = 30.0  # a server that does not answer fails earlier, after HTTP_SECONDS
SAMPLE_SECONDS = 30.0


class LiveRun:
    """An MLflow run that gets metrics while its stage runs.

    It continues the store's run that has its key (or the id `run_id`), and logs no epoch twice. If
    that run has finished and there is no `history`, this is a new training: it gets a new run.

    Args:
        header: the run's description.
        history: the rows of the epochs before a resume; those that the store lacks are logged.
        sample: returns system metrics; it is called every SAMPLE_SECONDS.
        run_id: the id of a run to continue, with any key, if the store has it.
    """

    advice = ""

    def __init__(
        self,
        header: RunHeader,
        history: Sequence[Mapping[str, float]] = (),
        sample: Gauge | None = None,
        run_id: str = "",
    ) -> None:
        self.run_id = ""  # until the store has answered
        header = replace(header, tags={**header.tags, **owner()})
        self._header, self._known_id, self._resumed = header, run_id, bool(history)
        self._sample, self._sample_at = sample, time.monotonic() + 1
        self._entries: list[tuple[int, int, Mapping[str, float]]] = []  # time in ms, step, values
        self._sent, self._logged_epochs = 0, set[int]()
        self._mlflow: MlflowClient | None = None
        self._failed, self._end = False, ("", 0)  # the run's status and time (ms) at its end
        self._news, self._answered = threading.Event(), threading.Event()
        for row in history:
            self.log_epoch(row)
        self._news.set()  # opens the run at once
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of a step."""
        self._entries.append((milliseconds(), step, metrics))
        self._news.set()

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of the history."""
        self.log({name: row[name] for name in row if name != "epoch"}, int(row["epoch"]))

    def opened(self, seconds: float) -> str:
        """The run's id as soon as the store has answered; '' if it fails or takes longer."""
        self._answered.wait(seconds)
        return self.run_id

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run (FINISHED, FAILED or KILLED) and wait until all is sent or has failed."""
        self._end = (status, milliseconds())
        self._news.set()
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self._fail(TimeoutError(f"no answer within {FINISH_SECONDS:g} s"))

    def _work(self) -> None:
        while True:
            seconds = self._sample_at - time.monotonic() if self._sample else None
            self._news.wait(seconds if seconds is None else max(0, seconds))
            self._news.clear()
            end = self._end
            self._take_sample()
            if end[0] or not self._failed:
                try:
                    self._send(*end)
                except Exception as error:  # of a database, a server or the file system
                    self._fail(error)
            self._answered.set()
            if end[0]:
                return

    def _send(self, status: str, ended: int) -> None:
        from mlflow.entities import Metric

        mlflow = self._mlflow = self._mlflow or client()
        if not self.run_id:
            self._open(mlflow)
        entries = self._entries[self._sent :]
        metrics = [
            Metric(name, float(value), at, step)
            for at, step, values in entries
            if not ("train_loss" in values and step in self._logged_epochs)
            for name, value in values.items()
        ]
        log_metrics(mlflow, self.run_id, metrics)
        self._sent += len(entries)
        if status:
            mlflow.set_terminated(self.run_id, status, ended)
            try_to_close_dead_runs(mlflow)

    def _open(self, mlflow: "MlflowClient") -> None:
        run = find_run(mlflow, self._header, self._known_id)
        if run and not self._known_id and not self._resumed and run.info.status == "FINISHED":
            run = None
        if run:
            mlflow.update_run(run.info.run_id, status="RUNNING")
            self._logged_epochs = set(epochs_of(mlflow, run.info.run_id))
        else:
            run = create_run(mlflow, self._header)
        describe_run(mlflow, run, self._header)
        self.run_id = run.info.run_id
        try_to_close_dead_runs(mlflow)

    def _take_sample(self) -> None:
        if not self._sample or time.monotonic() < self._sample_at:
            return
        self._sample_at = time.monotonic() + SAMPLE_SECONDS
        now = milliseconds()
        step = int((now - self._header.started) / 1000 / SAMPLE_SECONDS)
        try:
            self._entries.append((now, step, dict(self._sample())))
        except Exception:  # of a driver; the other metrics are still logged
            self._sample = None

    def _fail(self, error: BaseException) -> None:
        if not self._failed:
            self._failed = True
            reason = f"{self.advice}{explain(error)}"
            warn(self._header.name, f"MLflow cannot be reached, the run goes on ({reason})")


class RunTracker(LiveRun):
    """The MLflow run of a training, logged while it trains.

    It also prints a line for each epoch if stderr is a file or a pipe, where the training loop
    draws no progress bar.

    Args:
        header: see `header_of`.
        history: see `LiveRun`.
        gauge: returns further system metrics.
    """

    advice = "`vmunet mlflow rebuild` logs it later; "

    def __init__(
        self,
        header: RunHeader,
        history: Sequence[Mapping[str, float]],
        gauge: Gauge | None = None,
    ) -> None:
        tags = {**header.tags, "processor": processor_name(), **parent_tags()}
        self._resumed_from = len(history)
        super().__init__(replace(header, tags=tags), history, system_sampler(gauge))

    def log_epoch(self, row: Mapping[str, float]) -> None:
        super().log_epoch(row)
        if row["epoch"] > self._resumed_from and not sys.stderr.isatty():
            print(epoch_line(row, self._header.params["train.epochs"]), flush=True)
