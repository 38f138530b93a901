"""Tidy tables: the data behind a printed table, as its CSV file holds them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmunet.csv_cells import UnixLines, to_cells

Value = str | bool | int | float | None


@dataclass(frozen=True)
class Tidy:
    """A tidy table, as its CSV file holds it: the columns' names, and rows of the same length."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def csv(self) -> str:
        """The file's text; an absent value is an empty field."""
        text = io.StringIO()
        csv.writer(UnixLines(text)).writerows(map(to_cells, [self.columns, *self.rows]))
        return text.getvalue()

    def records(self) -> list[dict[str, Value]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def tidy(records: Sequence[Mapping[str, Any]]) -> Tidy:
    """Make a table of records; floats have 6 decimals, absent and undefined values are None.

    The columns keep the order of their first appearance in the records. If a number of a column is
    absent, all its other numbers are floats.
    """
    columns = tuple(dict.fromkeys(name for record in records for name in record))
    by_column = [_uniform([record.get(name) for record in records]) for name in columns]
    return Tidy(columns, tuple(zip(*by_column, strict=True)))


def _uniform(values: Sequence[Any]) -> list[Value]:
    present = [value for value in values if value is not None]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )
    if not numbers or (len(present) == len(values) and all(isinstance(v, int) for v in present)):
        return list(values)
    return [
        None if value is None or value != value else float(np.round(float(value), 6))
        for value in values
    ]
