"""A training's process: no other one trains the run, and SIGTERM ends it in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.config.runs import Run
from vmunet.errors import InputError

RESUME = Path(".resume")
LOCK_SECONDS = 8.0


@contextmanager
def only_here(run: Run) -> Iterator[None]:
    """Let no other process train the run meanwhile.

    A process that has just been killed may live on for some seconds in its workers.

    Raises:
        InputError: another process trains it.
    """
    lock = FileLock(RESUME / f"{run.name}.lock")
    try:
        RESUME.mkdir(exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise InputError(
            f"{run.name}: another process trains this run; wait for its end, or end it"
        ) from None
    except (OSError, NotImplementedError):  # a folder that cannot be written, or has no locks
        pass
    try:
        yield
    finally:
        lock.release()


def stop_as_ctrl_c_does() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that MLflow learns of the end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
