"""The paper's tables on the page: published beside measured, each measured figure with its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.make.page.layout import DASH, Cell, Column, PageTable, source
from reports.make.results.views import DASH as NOTHING
from reports.make.tables.captions import Caption
from reports.make.tables.layout import best, extra_columns
from reports.make.tables.rows import Figure, Row, Table
from reports.make.typeset.sheet import bracketed, number, probability, signed

VERDICTS = {"inside": "\u2248 inside", "above": "\u25b2 above", "below": "\u25bc below"}
LEGEND = (
    "publ.: as the paper reports; meas.: measured here, a link to the metrics file; diff.: "
    "measured minus published, in points. The arrow \u2197 opens the run on MLflow's page (make ui "
    "starts it). The best of each column is bold. Every column can be sorted: click its "
    "heading, or press Enter on it."
)
INFERENCE = (
    "In brackets: the 95% bootstrap interval of the measured figure over the test images or cases; "
    "below a difference, where that interval lies: inside (it holds the published value), above or "
    "below it. \u2605: differs from VM-UNet's own row in a paired permutation test (p < 0.05 after "
    "Holm's correction)."
)


@dataclass(frozen=True)
class Section:
    """A table of the paper with its caption, in one part or in one for each dataset."""

    key: str
    title: str
    caption: Caption
    tables: list[PageTable]


def sections(
    tables: Sequence[Table], captions: Mapping[str, Caption], declared: Mapping[str, Any]
) -> list[Section]:
    """A section for each table of the paper; captions are by the tables' names."""
    return [
        Section(
            key=table.name,
            title=f"Table {table.key}. {captions[table.name].title}",
            caption=captions[table.name],
            tables=_parts(table, declared),
        )
        for table in tables
    ]


def has_inference(tables: Sequence[Table]) -> bool:
    """Whether any figure has an interval or a test to explain."""
    return any(
        figure.inference is not None
        for table in tables
        for row in table.rows
        for figures in row.figures.values()
        for figure in figures.values()
    )


def _parts(table: Table, declared: Mapping[str, Any]) -> list[PageTable]:
    datasets = list(table.spec["datasets"])
    if table.spec["layout"] == "stacked":
        return [_stacked(table, declared, dataset) for dataset in datasets]
    groups = [datasets] if table.spec["layout"] == "columns" else [[name] for name in datasets]
    return [_side_by_side(table, declared, group) for group in groups]


def _side_by_side(table: Table, declared: Mapping[str, Any], datasets: Sequence[str]) -> PageTable:
    """Published, measured and difference beside one another under each metric."""
    rows = _rows(table, datasets)
    names, metrics = declared["datasets"], table.spec["metrics"]
    extra = list(extra_columns(table))
    columns = [Column(text, number=False) for text in (table.spec["heading"], *extra)]
    upper, lower = [("", len(columns))], [("", len(columns))]
    cells = [[Cell(row.label)] for row in rows]
    for row, of_row in zip(rows, cells, strict=True):
        if extra:
            of_row += [_plain(text) for text in row.extra or (DASH,) * len(extra)]
    for dataset in datasets:
        upper.append((names[dataset], 3 * len(metrics)))
        for metric in metrics:
            heading = declared["metrics"][metric]["heading"]
            lower.append((heading, 3))
            of = f"{names[dataset]} {heading}"
            columns += [Column(text, of=of) for text in ("publ.", "meas.", "diff.")]
            better = declared["metrics"][metric]["better"]
            for row, three in zip(cells, _three(rows, dataset, metric, better), strict=True):
                row += three
    return PageTable(
        key=f"{table.name}-{'-'.join(datasets)}",
        caption=f"Table {table.key}, {' and '.join(names[dataset] for dataset in datasets)}",
        groups=[upper, lower] if len(datasets) > 1 else [lower],
        columns=columns,
        rows=cells,
        references=[row.reference for row in rows],
    )


def _stacked(table: Table, declared: Mapping[str, Any], dataset: str) -> PageTable:
    """Many metrics: a row of published figures, and one of measured ones below it.

    Sorting then ranks what was measured among what was published.
    """
    metrics = table.spec["metrics"]
    columns = [Column(text, number=False) for text in (table.spec["heading"], "Figures")]
    columns += [Column(declared["metrics"][metric]["heading"]) for metric in metrics]
    cells: list[list[Cell]] = []
    references: list[int | None] = []
    rows = _rows(table, [dataset])
    by_metric = [
        _three(rows, dataset, metric, declared["metrics"][metric]["better"]) for metric in metrics
    ]
    for i, row in enumerate(rows):
        published, measured, difference = zip(*(three[i] for three in by_metric), strict=True)
        if row.protocol == "paper":
            cells.append([Cell(row.label), Cell("published"), *published])
            references.append(row.reference)
        if row.cell is not None:
            both = zip(measured, difference, strict=True)
            cells.append([Cell(row.label), Cell("measured"), *(_beneath(*two) for two in both)])
            references.append(None)
    return PageTable(
        key=f"{table.name}-{dataset}",
        caption=f"Table {table.key}, {declared['datasets'][dataset]}; below a measured figure its "
        "difference to the published one",
        groups=[],
        columns=columns,
        rows=cells,
        references=references,
    )


def _rows(table: Table, datasets: Sequence[str]) -> list[Row]:
    return [row for row in table.rows if any(dataset in row.figures for dataset in datasets)]


def _plain(text: str) -> Cell:
    """A text whose dash, where it is one, becomes the page's."""
    return Cell(DASH if text == NOTHING else text)


def _three(
    rows: Sequence[Row], dataset: str, metric: str, better: str
) -> list[tuple[Cell, Cell, Cell]]:
    """Published, measured and difference of each row, the best of the first two in bold."""
    figures = [row.figures.get(dataset, {}).get(metric, Figure()) for row in rows]
    # The paper reports nothing under the sound protocol: that row only compares with it.
    published = [
        None if row.protocol == "sound" else figure.published
        for row, figure in zip(rows, figures, strict=True)
    ]
    best_published = best([number(value) for value in published], better)
    best_measured = best([number(figure.measured) for figure in figures], better)
    return [
        (
            _figure(value, bold=number(value) == best_published),
            _measured(row, dataset, figure, bold=number(figure.measured) == best_measured),
            _difference(figure),
        )
        for row, figure, value in zip(rows, figures, published, strict=True)
    ]


def _figure(value: float | None, bold: bool) -> Cell:
    return Cell(_text(value), sort=value, bold=bold)


def _measured(row: Row, dataset: str, figure: Figure, bold: bool) -> Cell:
    if figure.measured is None:
        return Cell(DASH)
    found = figure.inference
    interval: tuple[str, ...] = ()
    star = ""
    if found is not None and found.low is not None:
        interval = (bracketed(found.low, found.high),)
    if found is not None and found.significant:
        star = f"differs from VM-UNet's row, p {_p(found.p)}"
    return Cell(
        number(figure.measured, figure.std),
        sort=figure.measured,
        bold=bold,
        star=star,
        small=interval,
        sources=tuple(source(result) for result in row.results.get(dataset, [])),
    )


def _difference(figure: Figure) -> Cell:
    if figure.difference is None:
        return Cell(DASH)
    found = figure.inference
    small = (VERDICTS[found.verdict],) if found is not None and found.verdict else ()
    return Cell(signed(figure.difference), sort=figure.difference, small=small)


def _beneath(measured: Cell, difference: Cell) -> Cell:
    """A measured figure with its difference in a line beneath."""
    if difference.text == DASH:
        return measured
    below = " ".join([difference.text, *difference.small])
    return replace(measured, small=(*measured.small, below))


def _p(p: float | None) -> str:
    """A probability after a sign of its own."""
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def _text(value: float | None) -> str:
    return DASH if value is None else number(value)
