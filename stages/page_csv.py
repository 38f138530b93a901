"""The further tables on the page: whatever tidy CSV files stand in reports/tables/."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from stages.page_layout import DASH, Cell, Column, PageTable, Source, linked, mlflow_page
from vmunet.errors import InputError

# In this order; files that are not named here follow, under their own names.
TITLES = {
    "sound": "Honest evaluation of images",
    "organs": "Honest evaluation of volumes, by organ",
    "comparison": "Paired comparisons with VM-UNet",
    "protocols": "What the protocol changes",
    "cross": "Trained on one dataset, tested on the other",
    "reproductions": "Published figures beside reproductions",
    "runs": "Every run, and the way back from it",
}
PAPER_TABLE = re.compile(r"table\d+")  # shown above, from the same figures
PATHS = ("metrics_file", "metrics_files", "checkpoint_path")
SHORT = 10  # letters of a hash that are shown
HASH = re.compile(r"[0-9a-f]{20,}")


def further_tables(folder: Path) -> list[tuple[str, PageTable]]:
    """Title and table of each CSV file of `folder` that holds none of the paper's tables.

    Raises:
        InputError: a file is not CSV.
    """
    order = list(TITLES)
    paths = [path for path in folder.glob("*.csv") if not PAPER_TABLE.fullmatch(path.stem)]
    known = [path for name in order for path in paths if path.stem == name]
    others = sorted(path for path in paths if path.stem not in TITLES)
    return [(title_of(path), read_table(path)) for path in (*known, *others)]


def title_of(path: Path) -> str:
    """The title of a file: a known one, or its name in words."""
    words = path.stem.replace("_", " ").replace("-", " ")
    return TITLES.get(path.stem, words[:1].upper() + words[1:])


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
        name: pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        for name, column in frame.items()
    }
    cells = {name: _cells(str(name), frame[name], written[name], numeric) for name in frame}
    for name in list(cells):
        low, high = (f"{name}_{end}" for end in ("low", "high"))
        if numeric[name] and numeric.get(low) and numeric.get(high):
            ends = zip(cells.pop(low), cells.pop(high), strict=True)
            cells[name] = [
                replace(cell, small=f"[{one.text}, {other.text}]")
                for cell, (one, other) in zip(cells[name], ends, strict=True)
            ]
    return PageTable(
        key=f"csv-{path.stem}",
        caption=path.name,
        groups=[],
        columns=[Column(str(name).replace("_", " "), number=numeric[name]) for name in cells],
        rows=[[column[i] for column in cells.values()] for i in range(len(frame))],
        references=[None] * len(frame),
    )


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
