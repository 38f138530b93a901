"""figures.json: which figures there are, in order, and what is said of each."""

import json
from pathlib import Path

from vmunet.errors import InputError

NAME = "figures.json"
# name: of its files, without suffix; data: `phantom`, `real` or `mixed`
FIELDS = ("name", "title", "caption", "data", "alt")
AGAIN = "run `python -m stages.figures` again"


def listed_figures(folder: Path) -> list[dict[str, str]]:
    """The entries (`FIELDS`) of a folder's figures.json; none where there is no such file.

    Raises:
        InputError: it is malformed, or the PDF or PNG of a figure is missing.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: expected a list of figures; {AGAIN}")
    for entry in entries:
        for field in FIELDS:
            if not isinstance(entry.get(field), str):
                raise InputError(f"{path}: a figure lacks its '{field}'; {AGAIN}")
        for suffix in ("pdf", "png"):
            file = folder / f"{entry['name']}.{suffix}"
            if not file.is_file():
                raise InputError(f"{file}: no such file, though {path} lists it; {AGAIN}")
    return entries
