"""Optuna's journal in a file that several processes share and that stays readable after a kill."""

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
    """A lock of the kernel, which is released when its holder ends, for whatever reason.

    Optuna's own locks are files that a killed process leaves behind; all other processes then wait
    for 30 s. A killed process may also leave an incomplete line. The next line would be appended to
    it, and Optuna could not read the journal. So the process that gets the lock removes such a
    line.
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
    """Remove the last line if it is incomplete."""
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
    """The journal's file; a full disk and a broken line give an error of one sentence."""

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
    """Open the storage in this file, which is made if it does not exist.

    Raises:
        InputError: the file is not a journal, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    except InputError:
        raise
    except Exception as error:  # replaying foreign lines can raise any error
        raise InputError(damaged(path, f"{type(error).__name__}: {error}")) from None


def damaged(path: Path, reason: str) -> str:
    return (
        f"{path}: not a study's journal, or damaged ({' '.join(reason.split())}); move it away, or "
        "give --study another name"
    )
