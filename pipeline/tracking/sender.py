"""Sends a run's outbox from a thread of its own, while the run goes on."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.tracking.outbox import Outbox, RunHeader
from pipeline.tracking.store import client, explain, milliseconds, warn

RETRY_SECONDS = (2.0, 60.0)  # first and longest pause after a failure
FINISH_SECONDS = 30.0  # how long the end of a stage waits at most
Sample = Callable[[], Mapping[str, float]]


class Sender:
    """The MLflow run of a stage that is at work.

    Args:
        header: the run.
        senders: how further kinds of entries are sent (see `Outbox.send`).
        sample: gives system metrics; asked every `interval` seconds, from the thread.
    """

    def __init__(
        self,
        header: RunHeader,
        senders: Mapping[str, Callable[..., None]] | None = None,
        sample: Sample | None = None,
        interval: float = 30.0,
    ) -> None:
        self._header, self._senders = header, senders or {}
        self._sample, self._interval = sample, interval
        self._outbox = Outbox.of(header)
        self._wake = threading.Condition()
        self._news, self._ending = True, False
        self._failed = False
        # a daemon: a store that hangs must not keep the process
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty until the store has answered."""
        return self._outbox.run_id

    def add(self, what: str, **content: Any) -> None:
        """Have something sent."""
        try:
            self._outbox.append({"what": what, "time": milliseconds(), **content})
        except OSError as error:  # a full disk ends a run where it has to be written, not here
            self._fail(error)
        with self._wake:
            self._news = True
            self._wake.notify()

    def finish(self, status: str = "") -> None:
        """Wait until all is sent or the store has failed once more; `status` closes the run."""
        if status:
            self.add("end", status=status)
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self._fail(TimeoutError(f"no answer within {FINISH_SECONDS:g} s"))
        if self._outbox.refused:
            warn(self._header.name, f"MLflow refused a part ({explain(self._outbox.refused[0])})")

    def _run(self) -> None:
        pause, retry_at, sample_at = RETRY_SECONDS[0], 0.0, time.monotonic() + 1
        try:
            while True:
                now = time.monotonic()
                if self._sample and now >= sample_at:
                    sample_at = now + self._interval
                    self._add_sample(self._sample)
                with self._wake:
                    ending, news = self._ending, self._news
                    self._news = False
                if ending or (news and now >= retry_at):
                    try:
                        self._outbox.send(self._client(), self._senders)
                        pause = RETRY_SECONDS[0]
                    except Exception as error:  # a database's, a server's, the file system's
                        self._fail(error)
                        retry_at = time.monotonic() + pause
                        pause = min(2 * pause, RETRY_SECONDS[1])
                        news = True
                    else:
                        news = False
                if ending:
                    return
                with self._wake:
                    self._news |= news
                    until = [sample_at] if self._sample else []
                    until += [retry_at] if self._news else []
                    rest = min(until) - time.monotonic() if until else None
                    if not self._ending and (rest is None or rest > 0):
                        self._wake.wait(rest)
        finally:
            self._outbox.close()

    def _client(self) -> Any:
        if not hasattr(self, "_mlflow"):
            self._mlflow = client()
        return self._mlflow

    def _add_sample(self, sample: Sample) -> None:
        now = milliseconds()
        step = int((now - self._header.started) / 1000 / self._interval)
        try:
            values = dict(sample())
        except Exception:  # a driver's: no reason to stop sending what matters
            self._sample, values = None, {}
        if values:
            self._outbox.append({"what": "metrics", "time": now, "step": step, "metrics": values})
            with self._wake:
                self._news = True

    def _fail(self, error: BaseException) -> None:
        if not self._failed:  # once: the rest is in the file
            self._failed = True
            warn(
                self._header.name,
                f"MLflow cannot be reached, what it is told waits in {self._outbox.path.parent}/ "
                f"(`vmunet mlflow sync` sends it; {explain(error)})",
            )
