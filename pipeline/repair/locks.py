"""Locks on files, the same as DVC's."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

GUARDS = Path(".dvc/tmp/guards")  # a file for each dvc process; its guard holds a lock on it
PATIENCE_SECONDS = 3.0  # as long as DVC waits


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold one of DVC's locks in the block; yields whether it could be had.

    A lock without a file is free: DVC has not run yet, or it was told to lock with hard links.
    """
    if not path.is_file():
        yield True
        return
    with open(path, "r+") as file:
        yield try_lock(file, PATIENCE_SECONDS)


def try_lock(file: IO[str], patience: float = 0.0) -> bool:
    """Lock a file until it is closed, within so many seconds; return whether that worked."""
    from fcntl import LOCK_EX, LOCK_NB, flock  # not on Windows

    deadline = time.monotonic() + patience
    while True:
        try:
            flock(file, LOCK_EX | LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
