"""Write folders and files completely or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
