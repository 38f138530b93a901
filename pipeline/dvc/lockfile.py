"""A stage's entry in dvc.lock: written as DVC would write it, and in one step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.repair.lock_text import LockText, split
from vmunet.errors import InputError
from vmunet.files import whole_file

if TYPE_CHECKING:
    from dvc.stage import PipelineStage


@contextmanager
def as_recorded(stage: "PipelineStage") -> Iterator[Callable[[], None]]:
    """Reset the stage's hashes to those of dvc.lock at the end, unless the body calls `keep`.

    `keep` is the function that this yields. New hashes of dependencies together with old hashes of
    outputs would look like a result: when the stage is tried again, DVC would restore the old
    outputs for the new dependencies.
    """
    names = ("hash_info", "hash_name", "meta", "obj", "files")
    items = [*stage.deps, *stage.outs]
    before = [
        {name: getattr(item, name) for name in names if hasattr(item, name)} for item in items
    ]
    kept: list[bool] = []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            for item, values in zip(items, before, strict=True):
                for name, value in values.items():
                    setattr(item, name, value)


def enter(stage: "PipelineStage") -> None:
    """Write the stage's entry of dvc.lock."""
    from dvc.stage.serialize import to_lockfile

    write_entry(Path(stage.dvcfile._lockfile.path), stage.name, to_lockfile(stage)[stage.name])


def write_entry(lock: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Write a stage's entry to dvc.lock in one step, byte for byte as DVC would."""
    from dvc.utils.serialize import dumps_yaml

    text = lock.read_text(encoding="utf-8") if lock.exists() else str(LockText())
    changed = split(text)
    dumped = split(dumps_yaml({"schema": "2.0", "stages": {name: entry}}))
    if changed is None or dumped is None:
        raise InputError(f"{lock}: not in DVC's format; `dvc repro {name}` repairs it")
    changed.entries |= dumped.entries
    if str(changed) != text:
        with whole_file(lock) as part:
            part.write_text(str(changed), encoding="utf-8")


def message_of(error: BaseException) -> str:
    """An error's message on one line; the name of its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
