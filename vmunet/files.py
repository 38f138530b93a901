"""Write folders and files completely or not at all, and files for their owner alone."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PRIVATE = 0o600


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
        yield part
        os.replace(part, target)
    finally:
        _remove(part)


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
