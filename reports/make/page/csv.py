"""The further tables on the page: whatever tidy CSV files stand in reports/out/tables/."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports.make.page.layout import DASH, Cell, Column, PageTable, Source, linked, mlflow_page
from reports.make.tables.captions import Caption
from vmunet.errors import InputError

# Of what no caption of the tables speaks, or of more than its caption says.
TITLES = {
    "sound": "Honest evaluation at both sizes",
    "runs": "Every run, and the way back from it",
}
PAPER_TABLE = re.compile(r"table\d+")  # shown above, from the same figures
PATHS = ("metrics_file", "metrics_files", "checkpoint_path")
TEXTS = re.compile(r"git|.*_(id|hash|sha256)|metrics_files?|seeds?|runs")  # whatever they look like
SHORT = 10  # letters of a hash that are shown
HASH = re.compile(r"[0-9a-f]{20,}")


@dataclass(frozen=True)
class Further:
    """A table that the paper does not have; `caption` is None where nobody wrote one."""

    key: str
    title: str
    caption: Caption | None
    table: PageTable


def further_tables(folder: Path, captions: Mapping[str, Caption]) -> list[Further]:
    """Each CSV file of `folder` that holds none of the paper's tables.

    They stand in the order of `captions`, which are by the files' names; then come those without.

    Raises:
        InputError: a file is not CSV.
    """
    paths = {p.stem: p for p in sorted(folder.glob("*.csv")) if not PAPER_TABLE.fullmatch(p.stem)}
    names = [*(name for name in captions if name in paths), *paths]
    return [
        Further(
            key=f"further-{_key(name)}",
            title=title_of(name, captions.get(name)),
            caption=captions.get(name),
            table=read_table(paths[name]),
        )
        for name in dict.fromkeys(names)
    ]


def title_of(name: str, caption: Caption | None) -> str:
    """The title of a file: its caption's, or its name in words."""
    words = name.replace("_", " ").replace("-", " ")
    return TITLES.get(name) or (caption.title if caption else words[:1].upper() + words[1:])


def read_table(path: Path) -> PageTable:
    """A tidy CSV file as a table: figures rounded as their column needs, paths as links.

    Columns `x_low` and `x_high` stand in brackets below the figures of their column `x`.

    Raises:
        InputError: it is not CSV.
    """
    try:
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a CSV file ({error}); run `python -m stages.tables`"
        ) from None
    written = pd.read_csv(path, dtype=str, keep_default_na=False) if len(frame.columns) else frame
    numeric = {
        name: pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_bool_dtype(column)
        and not TEXTS.fullmatch(str(name))
        for name, column in frame.items()
    }
    cells = {name: _cells(str(name), frame[name], written[name], numeric) for name in frame}
    for name in list(cells):
        low, high = (f"{name}_{end}" for end in ("low", "high"))
        if numeric[name] and numeric.get(low) and numeric.get(high):
            ends = zip(cells.pop(low), cells.pop(high), strict=True)
            cells[name] = [
                replace(cell, small=(f"[{one.text}, {other.text}]",))
                for cell, (one, other) in zip(cells[name], ends, strict=True)
            ]
    return PageTable(
        key=f"csv-{_key(path.stem)}",
        caption=path.name,
        groups=[],
        columns=[Column(str(name).replace("_", " "), number=numeric[name]) for name in cells],
        rows=[[column[i] for column in cells.values()] for i in range(len(frame))],
        references=[None] * len(frame),
    )


def _key(name: str) -> str:
    """A name as the id of an element: without spaces."""
    return re.sub(r"[^\w-]+", "-", name)


def _cells(
    name: str, column: "pd.Series[Any]", written: "pd.Series[str]", numeric: Mapping[Any, bool]
) -> list[Cell]:
    if not numeric[column.name]:
        return [_text(name, text) for text in written]
    if pd.api.types.is_integer_dtype(column) or (column.dropna() % 1 == 0).all():
        digits = 0
    else:
        # percentages and distances to 2 places; what is all below 1, such as p, to 4
        digits = 2 if column.abs().max() > 1 else 4
    return [
        Cell(DASH) if pd.isna(value) else Cell(_number(value, digits), float(value), full=text)
        for value, text in zip(column, written, strict=True)
    ]


def _number(value: float, digits: int) -> str:
    """A small one is not rounded to 0."""
    rounded = f"{value:.{digits}f}"
    return f"{value:.1e}" if value and float(rounded) == 0 else rounded


def _text(name: str, text: str) -> Cell:
    if not text:
        return Cell(DASH)
    if name in PATHS:
        paths = text.split(";")
        if len(paths) == 1:
            return Cell(Path(text).name, href=linked(text), full=text)
        files = tuple(Source(path, linked(path), "") for path in paths)
        return Cell(f"{len(files)} files", sources=files)
    if name == "mlflow_run_id":
        return Cell(text[:SHORT], href=mlflow_page(text), full=text)
    if HASH.fullmatch(text):
        return Cell(text[:SHORT], full=text)
    return Cell(text)
