"""Tables I to VI as they are printed: headings, lines, cells, and the best figures in bold."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.make.report import OURS, Figure, PaperTable, Row
from reports.make.typeset.sheet import Block, Caption, Line, Sheet, SheetCell, Span, plain
from reports.make.typeset.words import DASH, best, number

PUBLISHED, MEASURED = "publ.", "meas."


def label(row: Row) -> str:
    return row.label if row.reference is None else f"{row.label} [{row.reference}]"


def paper_sheet(
    table: PaperTable, declared: Mapping[str, Any], caption: Caption, datasets: Sequence[str] = ()
) -> Sheet:
    """One of the paper's tables; if `datasets` is given, only the part of these datasets."""
    named = zip(table.spec["datasets"], caption.origins, strict=True)
    names = {dataset: origin.tagged for dataset, origin in named}
    shown_datasets = list(datasets or table.spec["datasets"])
    if table.spec["layout"] == "stacked":
        return _stacked(table, declared, caption, {key: names[key] for key in shown_datasets})
    columns = table.spec["layout"] == "columns"
    groups = [shown_datasets] if columns else [[name] for name in shown_datasets]
    titled = not columns and not datasets
    spans, head = _header(
        table, declared, [names[key] for key in shown_datasets] if columns else [""]
    )
    return Sheet(
        name=table.name,
        caption=caption,
        head=head,
        blocks=tuple(
            Block(
                names[group[0]] if titled else "",
                tuple(_side_lines(table, declared, group)),
            )
            for group in groups
        ),
        spans=spans,
        left=1 + len(table.extra_columns) if table.spec.get("extra") == "initial" else 1,
    )


def _shown(table: PaperTable, datasets: Sequence[str]) -> list[Row]:
    """The rows that have a figure for any of `datasets`."""
    return [row for row in table.rows if any(dataset in row.figures for dataset in datasets)]


def _side_lines(
    table: PaperTable, declared: Mapping[str, Any], datasets: Sequence[str]
) -> list[Line]:
    """Published and measured next to each other under each metric."""
    rows = _shown(table, datasets)
    cells: list[list[SheetCell]] = [[] for _ in rows]
    for dataset in datasets:
        for metric in table.spec["metrics"]:
            better = declared["metrics"][metric]["better"]
            for row_cells, pair in zip(cells, _column(rows, dataset, metric, better), strict=True):
                row_cells += pair
    lines = []
    for index, (row, row_cells) in enumerate(zip(rows, cells, strict=True)):
        # A sound row would repeat the columns of the row above; a cost has its own table.
        extra = row.extra if row.protocol != "sound" and table.extra_columns else ()
        extra = extra or ("",) * len(table.extra_columns)
        ours_begin = index > 0 and row.model == OURS != rows[index - 1].model
        lines.append(
            Line(
                (SheetCell(label(row)), *plain(extra), *row_cells),
                under=row.protocol == "sound",
                apart=ours_begin,
            )
        )
    return lines


def _column(
    rows: Sequence[Row], dataset: str, metric: str, better: str, spread: bool = True
) -> list[tuple[SheetCell, SheetCell]]:
    """Published and measured of each row, the best of each column in bold."""
    figures = [row.figures.get(dataset, {}).get(metric, Figure()) for row in rows]
    # The paper reports nothing under the sound protocol: that row only compares with it.
    published = [
        DASH if row.protocol == "sound" else number(figure.published)
        for row, figure in zip(rows, figures, strict=True)
    ]
    measured = [number(figure.measured) for figure in figures]
    best_published, best_measured = best(published, better), best(measured, better)
    return [
        (
            SheetCell(published[i], published[i] == best_published),
            SheetCell(
                number(figure.measured, figure.std if spread else None),
                measured[i] == best_measured,
                figure.inference is not None and figure.inference.significant,
            ),
        )
        for i, figure in enumerate(figures)
    ]


def _header(
    table: PaperTable, declared: Mapping[str, Any], names: Sequence[str]
) -> tuple[tuple[tuple[Span, ...], ...], tuple[str, ...]]:
    """The rows of headings, and the headings of the single columns."""
    metrics = [declared["metrics"][metric]["heading"] for metric in table.spec["metrics"]]
    extra = list(table.extra_columns)
    column = 2 + len(extra)
    upper, lower = [], []
    for name in names:
        upper.append(Span(name, column, column + 2 * len(metrics) - 1))
        for metric in metrics:
            lower.append(Span(metric, column, column + 1))
            column += 2
    head = (table.spec["heading"], *extra, *((PUBLISHED, MEASURED) * len(lower)))
    spans = (tuple(upper), tuple(lower)) if any(names) else (tuple(lower),)
    return spans, head


def _stacked(
    table: PaperTable, declared: Mapping[str, Any], caption: Caption, names: Mapping[str, str]
) -> Sheet:
    """Published above measured, for many metrics; the spread is on a line below.

    If nothing was measured, no row has a line for it. `names` are the headings of the shown
    datasets.
    """
    metrics = table.spec["metrics"]
    extra = list(table.extra_columns)
    blocks = []
    for dataset, name in names.items():
        rows = _shown(table, [dataset])
        columns = [
            _column(rows, dataset, metric, declared["metrics"][metric]["better"], spread=False)
            for metric in metrics
        ]
        lines: list[Line] = []
        for index, row in enumerate(rows):
            pairs = [column[index] for column in columns]
            parts = [("published", tuple(pair[0] for pair in pairs))]
            if row.cell and table.runs:
                parts.append(("measured", tuple(pair[1] for pair in pairs)))
                spread = [row.figures[dataset].get(metric, Figure()).std for metric in metrics]
                if any(std is not None for std in spread):
                    parts.append(("± s.d.", plain(number(std) for std in spread)))
            if row.protocol == "sound":
                parts = parts[1:]  # the paper reports no such run
            for place, (part, cells) in enumerate(parts):
                first = label(row) if place == 0 else ""
                own = row.extra if part == "measured" and row.extra else ("",) * len(extra)
                lines.append(
                    Line(
                        (SheetCell(first), SheetCell(part), *plain(own), *cells),
                        under=row.protocol == "sound" and place == 0,
                        apart=bool(table.runs) and place == 0,
                    )
                )
        blocks.append(Block(name if len(names) > 1 else "", tuple(lines)))
    return Sheet(
        name=table.name,
        caption=caption,
        head=(
            table.spec["heading"],
            "",
            *extra,
            *(declared["metrics"][metric]["heading"] for metric in metrics),
        ),
        blocks=tuple(blocks),
        left=2 + len(extra),
    )
