"""Write folders and files completely or not at all, and files for their owner alone."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vmunet.errors import InputError

PRIVATE = 0o600
# A full disk or quota, a limit on a file's size, a disk that may only be read.
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
IN_WORDS = re.compile(r"\(os error (\d+)\)")  # of a library in Rust


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; it becomes `target` when the block ends without an error.

    On an error the folder is removed and `target` stays as it was. The next call removes what a
    killed run left behind.
    """
    part = _part(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(part)
    part.mkdir()
    try:
        with naming(target):
            yield part
            _remove(target)
            os.replace(part, target)
    finally:
        _remove(part)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Like `whole_folder`, for one file."""
    part = _part(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove(part)
    try:
        with naming(target):
            yield part
            os.replace(part, target)
    finally:
        _remove(part)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Let the error of a write that failed, which names no file, name `target`.

    Libraries hide such an error behind one of their own.

    Raises:
        OSError: the disk is full, or cannot be written for another reason of `CANNOT_WRITE`.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        number = _number_of(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(target)) from error


def _number_of(error: BaseException | None) -> int | None:
    """The system's error number behind an error, if a file could not be written."""
    while error is not None:
        words = IN_WORDS.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(words[1]) if words else None
        if number in CANNOT_WRITE:
            return number
        error = error.__cause__ or error.__context__
    return None


def make_private(path: Path) -> None:
    """Make an empty file that only its owner can read, unless there is a file."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, PRIVATE))


def open_log(path: Path, mode: str = "ab") -> IO[bytes]:
    """Open a log, in a folder that is made if needed; only its owner can read a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, PRIVATE))


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
