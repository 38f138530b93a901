"""Pools that run jobs in parallel: threads of this process, or Prefect's tasks.

A job is a stage of a sweep or a trial of a search. It ends with an outcome, or raises a StageError.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from pipeline.sweep.stage_runner import StageError, StageOutcome

if TYPE_CHECKING:
    from pipeline.sweep.plan import Sweep

FIRST_DELAY = 5.0  # seconds before the second attempt; doubled before each further one
Job = Callable[[], StageOutcome]


class JobPool(Protocol):
    """Runs jobs in parallel, and repeats a job if it raises a StageError that is not final."""

    def submit(self, name: str, job: Job, done: Callable[[], None]) -> None:
        """Start the job; call `done` when it has ended, successfully or not."""

    def show(self, sweep: "Sweep") -> None:
        """Display the changed outcomes of the sweep's stages."""

    def shut_down(self) -> None:
        """Wait for the running jobs."""


MakePool = Callable[[int, int], JobPool]  # arguments: jobs at once, retries


class Threads:
    """Runs jobs in threads of this process.

    Args:
        width: the number of jobs at once.
        retries: the number of further attempts for a job that fails.
    """

    def __init__(self, width: int, retries: int) -> None:
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="job")
        self._retries = retries
        self._closing = threading.Event()

    def submit(self, name: str, job: Job, done: Callable[[], None]) -> None:
        self._pool.submit(self._repeat, job).add_done_callback(lambda _: done())

    def show(self, sweep: "Sweep") -> None:
        """Do nothing: the lines on the terminal report every outcome."""

    def shut_down(self) -> None:
        self._closing.set()
        self._pool.shutdown()

    def _repeat(self, job: Job) -> StageOutcome:
        for attempt in range(self._retries + 1):
            try:
                return job()
            except StageError as error:
                if error.final or attempt == self._retries:
                    raise
            if self._closing.wait(FIRST_DELAY * 2**attempt):
                break
        raise StageError("stopped", final=True)
