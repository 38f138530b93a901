"""The text of dvc.lock as a sequence of entries, so that one can be replaced without the others."""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

STAGES = "stages:\n"


@dataclass
class LockText:
    """dvc.lock, split without reading its YAML.

    Attributes:
        head: the lines up to `stages:`.
        entries: the lines of each stage's entry, by the first of them.
        rest: the lines after the last entry.
    """

    head: str = f"schema: '2.0'\n{STAGES}"
    entries: dict[str, str] = field(default_factory=dict)
    rest: str = ""

    def __str__(self) -> str:
        return self.head + "".join(self.entries.values()) + self.rest


def split(text: str) -> LockText | None:
    """The text's parts; None if it is not as DVC writes it."""
    lines = text.splitlines(keepends=True)
    if STAGES not in lines or any(line.startswith("  ?") for line in lines):
        return None
    first = lines.index(STAGES) + 1
    end = next((i for i in range(first, len(lines)) if re.match(r"\S", lines[i])), len(lines))
    lock = LockText("".join(lines[:first]), rest="".join(lines[end:]))
    starts = [i for i in range(first, end) if re.match(r"  [^\s-]", lines[i])]
    for start, stop in pairwise([*starts, end]):
        lock.entries[lines[start]] = "".join(lines[start:stop])
    return lock


def lost_entries(found: LockText, known: LockText) -> list[str]:
    """The names of the known entries that the text lacks, if it is the known one's first part."""
    names = list(known.entries)
    count = len(found.entries)
    is_first_part = list(found.entries) == names[:count]
    return [name.strip().removesuffix(":") for name in names[count:]] if is_first_part else []


def is_whole(text: str) -> bool:
    """Whether dvc.lock can be read by DVC and does not end in the middle of an entry.

    A file that was cut off is damaged at its end only, so of the entries the last one is read.
    """
    lock = split(text)
    if lock is None or not lock.entries or not text.endswith("\n") or "\0" in text:
        return False
    from ruamel.yaml import YAML, YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(list(lock.entries.values())[-1])
    except YAMLError:
        return False
    return isinstance(content, dict) and all(map(is_entry, content.values()))


def is_entry(entry: Any) -> bool:
    """Whether a value has the form of the entry of a stage with outputs, as all stages here are.

    If the last of several outputs is cut off, DVC takes the stage from its cache.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("cmd"), str | list):
        return False
    files = [entry.get(part, []) for part in ("deps", "outs")]
    params = entry.get("params", {})
    return (
        bool(files[-1])
        and all(isinstance(part, list) and all(map(is_file, part)) for part in files)
        and isinstance(params, dict)
        and all(isinstance(values, dict) for values in params.values())
        and entry.keys() <= {"cmd", "deps", "params", "outs"}
    )


def is_file(item: Any) -> bool:
    """Whether a value has the form of a dependency or an output with its hash."""
    return (
        isinstance(item, dict)
        and all(isinstance(item.get(key), str) for key in ("path", "hash"))
        and isinstance(item.get(item["hash"]), str)
    )
