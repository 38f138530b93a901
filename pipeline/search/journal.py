"""Optuna's journal in a file that several processes share, and that a kill leaves readable."""

import fcntl
import os
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from vmunet.errors import InputError


class Lock(JournalFileOpenLock):
    """A lock of the kernel's, which ends with its holder however that ends.

    Optuna's own locks are files that a killed process leaves behind: all others then wait for
    30 s. And a line that a killed process left half written would swallow the next one, after
    which Optuna cannot read the journal any more; so whoever gets the lock cuts it off.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._held = -1

    def acquire(self) -> bool:
        descriptor = os.open(f"{self._journal}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._held = descriptor
        with suppress(FileNotFoundError):
            cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        os.close(self._held)


def cut_torn_line(path: Path) -> None:
    """Remove a last line that has no end."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


class Journal(JournalFileBackend):
    """The file; a disk that is full and a line that is none are one sentence each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(str(path), lock_obj=Lock(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from None

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise InputError(damaged(self._path, str(error))) from None


def open_journal(path: Path) -> JournalStorage:
    """The storage in this file, which is made if there is none.

    Raises:
        InputError: it cannot be read as a journal, or not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    except InputError:
        raise
    except Exception as error:  # whatever replaying lines of another make leads to
        raise InputError(damaged(path, f"{type(error).__name__}: {error}")) from None


def damaged(path: Path, reason: str) -> str:
    return (
        f"{path}: not a study's journal, or damaged ({' '.join(reason.split())}); move it away, or "
        "give --study another name"
    )
