"""Cells of CSV files that a spreadsheet shows and does not run.

A spreadsheet takes a cell that begins with = + - @, a tab or a line's end for a formula, and a
file's name may begin so. Such a cell is written with an apostrophe before it, which stands for
text there. Numbers stay numbers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

# Full-width forms too: a Japanese or Chinese spreadsheet reads them as the others.
FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# Numbers, and the dashes that a table shows for none.
HARMLESS = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-](inf|nan)|-+", re.ASCII | re.IGNORECASE
)


class UnixLines:
    """A text file whose lines `csv` writes with "\\n" at their ends.

    `csv` quotes a "\\r" inside a cell only if the line's end holds one too.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def to_cell(value: Any) -> Any:
    """A value as it is written; `from_cell` gives a text back."""
    is_formula = isinstance(value, str) and FORMULA.match(value) and not HARMLESS.fullmatch(value)
    return f"'{value}" if is_formula else value


def from_cell(text: str) -> str:
    """The text that `to_cell` wrote."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def to_cells(values: Iterable[Any]) -> list[Any]:
    """A row as it is written."""
    return [to_cell(value) for value in values]


def to_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by columns as it is written."""
    return {column: to_cell(value) for column, value in row.items()}


def from_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by columns as it was before it was written; an absent value stays absent."""
    return {k: from_cell(value) if isinstance(value, str) else value for k, value in row.items()}
