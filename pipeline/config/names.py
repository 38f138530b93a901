"""The names in params.yaml: they become folders, and arguments of the commands that DVC runs.

DVC writes a name into a command as it is and gives the command to a shell, which would run a name
such as `x; rm -r .`. No quotes around it are safe, because a name may hold quotes. So names are
checked before DVC reads the file, and in dvc.yaml by the stage `code`, before all other stages.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.yaml_file import read_yaml
from vmunet.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
MOST_SHOWN = 80


def check_name(name: Any, what: str) -> None:
    """Refuse a name that is not of letters, digits and '-', or that begins with '-'.

    Raises:
        InputError: `what`, and the name.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f"{what}: expected letters, digits and '-', not first (found {shortened(name)})"
        )


def check_names(content: dict[str, Any], path: Path) -> None:
    """Check the names of cells, views, datasets and the profile that params.yaml holds.

    Raises:
        InputError: see `check_name`.
    """
    for place, name in names_in(content):
        check_name(name, f"{path}: {place}")


def check_file(root: Path = Path(".")) -> None:
    """`check_names` for the params.yaml of a repository, if it has one.

    Raises:
        InputError: see `check_name` and `read_yaml`.
    """
    path = root / "params.yaml"
    if path.is_file():
        check_names(read_yaml(path), path)


def names_in(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(place, name) of all that dvc.yaml may write into a command: keys, and items of lists."""
    if "profile" in content:
        yield "profile", content["profile"]
    for section in ("cells", "own", "grid"):
        values = content.get(section) or {}
        if section == "cells":
            yield from items(section, values)
            continue
        for key, value in values.items() if isinstance(values, dict) else ():
            yield from items(f"{section}.{key}", value)


def items(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The keys of a mapping or the items of a list, but not whole numbers, which are seeds."""
    for item in value if isinstance(value, dict | list) else ():
        if not isinstance(item, int):
            yield place, item


def shortened(value: Any) -> str:
    """A value for a message, in one line."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
