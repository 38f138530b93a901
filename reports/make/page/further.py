"""The further tables on the page: those that the paper does not have, like their CSV files."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reports.make.page.layout import (
    DASH,
    Column,
    PageCell,
    PageTable,
    Source,
    linked,
    mlflow_page,
)
from reports.make.report import Report
from reports.make.tidy import Tidy, Value
from reports.make.typeset.sheet import Caption, Origin

RUNS = "runs"  # runs.csv, which has no caption
# One table of the page stands for two in LaTeX, so these titles differ from those captions'.
TITLES = {
    "sound": "Honest evaluation at both sizes",
    RUNS: "Every run, and the way back from it",
}
PATHS = ("metrics_file", "metrics_files", "checkpoint_path")
# Columns of texts, even if the texts look like numbers.
TEXTS = re.compile(r"git|.*_(id|hash|sha256)|metrics_files?|seeds?|runs")
SHORT = 10  # the number of a hash's letters that are shown
HASH = re.compile(r"[0-9a-f]{20,}")


@dataclass(frozen=True)
class Further:
    """A table that the paper does not have; `caption` is None if the table has none."""

    key: str
    title: str
    caption: Caption | None
    table: PageTable


def further_tables(report: Report) -> list[Further]:
    """Every table with data that the paper does not have, and the list of the runs."""
    own_parts = [
        (part.sheet.name, part.sheet.caption, part.data)
        for part in report.parts
        if part.data is not None and part.table is None
    ]
    return [
        Further(
            key=f"further-{name}",
            title=TITLES.get(name) or (caption.title if caption else name),
            caption=caption,
            table=page_table(name, data, caption.origins if caption else ()),
        )
        for name, caption, data in [*own_parts, (RUNS, None, report.runs)]
    ]


def page_table(name: str, data: Tidy, origins: tuple[Origin, ...] = ()) -> PageTable:
    """A tidy table: figures rounded as their column needs, paths as links.

    Columns `x_low` and `x_high` stand in brackets below the figures of their column `x`.
    """
    columns = {column: [row[i] for row in data.rows] for i, column in enumerate(data.columns)}
    numeric = {column: _is_numeric(column, values) for column, values in columns.items()}
    cells = {column: _cells(column, columns[column], numeric[column]) for column in columns}
    for column in columns:
        low, high = (f"{column}_{end}" for end in ("low", "high"))
        if numeric[column] and numeric.get(low) and numeric.get(high):
            ends = zip(cells.pop(low), cells.pop(high), strict=True)
            cells[column] = [
                replace(cell, small=(f"[{lower.text}, {upper.text}]",))
                for cell, (lower, upper) in zip(cells[column], ends, strict=True)
            ]
    return PageTable(
        key=f"csv-{name}",
        caption=f"{name}.csv",
        origins=origins,
        groups=[],
        columns=[Column(column.replace("_", " "), number=numeric[column]) for column in cells],
        rows=[[column[i] for column in cells.values()] for i in range(len(data.rows))],
        references=[None] * len(data.rows),
    )


def _is_numeric(column: str, values: Sequence[Value]) -> bool:
    """Whether every value that is present is a number, or the text of a number."""
    if TEXTS.fullmatch(column) or any(isinstance(value, bool) for value in values):
        return False
    try:
        return all(math.isfinite(float(value)) for value in values if value is not None)
    except ValueError:
        return False


def _cells(column: str, values: Sequence[Value], numeric: bool) -> list[PageCell]:
    if not numeric:
        return [_text(column, "" if value is None else str(value)) for value in values]
    numbers = [None if value is None else float(value) for value in values]
    present = [value for value in numbers if value is not None]
    # Percentages and distances to 2 places; columns below 1, such as p, to 4.
    digits = 2 if max(map(abs, present), default=0) > 1 else 4
    digits = 0 if all(value % 1 == 0 for value in present) else digits
    return [
        PageCell(DASH)
        if value is None
        else PageCell(_number(value, digits), value, full=str(written))
        for value, written in zip(numbers, values, strict=True)
    ]


def _number(value: float, digits: int) -> str:
    """The number's text; a small number is not rounded to 0."""
    rounded = f"{value:.{digits}f}"
    return f"{value:.1e}" if value and float(rounded) == 0 else rounded


def _text(column: str, text: str) -> PageCell:
    if not text:
        return PageCell(DASH)
    if column in PATHS:
        paths = text.split(";")
        if len(paths) == 1:
            return PageCell(Path(text).name, href=linked(text), full=text)
        files = tuple(Source(path, linked(path), "") for path in paths)
        return PageCell(f"{len(files)} files", sources=files)
    if column == "mlflow_run_id":
        return PageCell(text[:SHORT], href=mlflow_page(text), full=text)
    if HASH.fullmatch(text):
        return PageCell(text[:SHORT], full=text)
    return PageCell(text)
