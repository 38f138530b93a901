"""Reading the files of other stages. DVC has hashed these files, so their fields are trusted.

Only a file as a whole can still be wrong: it is missing, it cannot be read, or it is another
kind of file. Each of these is one error that says which command makes the file again.
"""

import csv
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmunet.csv_cells import from_row
from vmunet.errors import InputError

UNUSABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


@contextmanager
def trusted(path: Path | str, content: str, again: str) -> Iterator[None]:
    """Turn every error of the code that reads `path` into one InputError.

    Args:
        path: as messages name it.
        content: the expected content of the file, such as `the scores of a run`.
        again: how to make the file again, such as "run `python -m stages.figures`".
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {content}; {again}") from None
    except UNUSABLE as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"{path}: does not hold {content} ({why}); {again}") from None


def read_json(root: Path, path: Path | str, content: str, again: str) -> Any:
    """The content of a JSON file; `path` is relative to `root`; see `trusted` for the others."""
    with trusted(path, content, again):
        return json.loads((root / path).read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file. Raises ValueError if there are none."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [from_row(row) for row in csv.DictReader(file)]
    if not rows:
        raise ValueError("no rows")
    return rows
