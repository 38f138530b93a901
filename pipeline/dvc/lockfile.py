"""A stage's entry in dvc.lock: written as DVC would write it, and in one step."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    text = lock.read_text() if lock.exists() else "schema: '2.0'\nstages:\n"
    lines = text.splitlines(keepends=True)
    dumped = dumps_yaml({"schema": "2.0", "stages": {name: entry}})
    block = dumped[dumped.index("stages:\n") + len("stages:\n") :]
    head = block.splitlines(keepends=True)[0]
    if "stages:\n" not in lines or head.startswith("  ?"):
        raise InputError(f"{lock}: not in DVC's format; `dvc repro {name}` repairs it")
    first = lines.index("stages:\n") + 1
    end = next((i for i in range(first, len(lines)) if re.match(r"\S", lines[i])), len(lines))
    if head in lines[first:end]:
        start = lines.index(head, first, end)
        heads = (i for i in range(start + 1, end) if re.match(r"  [^\s-]", lines[i]))
        stop = next(heads, end)
    else:
        start = stop = end
    lines[start:stop] = [block]
    changed = "".join(lines)
    if changed != text:
        with whole_file(lock) as part:
            part.write_text(changed)


def message_of(error: BaseException) -> str:
    """An error's message on one line; the name of its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
