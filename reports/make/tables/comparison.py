"""Every measured row next to the paper's figure: interval, difference, test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.make.main_comparison import MAIN, SAME_IMAGES
from reports.make.report import Figure, PaperTable, Row
from reports.make.results.metrics import Result, VolumeResult
from reports.make.tables.captions import INTERVALS, METHODS, MODELS, runs_caption, volume_legend
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, SheetCell, Span, plain
from reports.make.typeset.words import DASH, bracketed, number, probability, signed

LEGEND = (
    "Published: best of an unknown number of runs, chosen on test images. The author calls them "
    "the best achieved (VM-UNet's repository, issue 3).",
    f"{INTERVALS} Each resample has the mean over the seeds. The difference is measured minus "
    "published, its interval that of the measured figure. For HD95 less is better.",
    f"{SAME_IMAGES} What a further training would give, other seeds say (table agreement, for rows "
    "with the paper's settings and three seeds).",
    "p: against VM-UNet's row under the paper protocol, corrected by Holm within the table, "
    "dataset and metric; of a row in several tables the largest. A dash where there is nothing to "
    "test.",
    MODELS,
    METHODS,
    "A row of several tables stands here once; the paper reports no run under the sound protocol, "
    "which is compared with the figure of its row. Dashes: the paper reports nothing to compare "
    "with.",
)


@dataclass(frozen=True)
class Compared:
    """One metric of one row, with the tables that show it."""

    tables: tuple[str, ...]
    label: str
    dataset: str
    metric: str
    row: Row
    figure: Figure
    results: Sequence[Result]

    @property
    def difference(self) -> tuple[float | None, float | None]:
        """The interval of the difference."""
        return self.figure.difference_interval or (None, None)

    @property
    def p(self) -> float | None:
        return self.figure.inference.p if self.figure.inference else None

    @property
    def tested(self) -> str | None:
        """What p compares; None without p."""
        if self.p is None or self.figure.inference is None:
            return None
        return "methods" if self.figure.inference.methods else "models"


def compared(tables: Sequence[PaperTable], inputs: Inputs) -> list[Compared]:
    """Measured rows, by dataset and metric; a cell's runs appear once.

    A row that the paper does not report is among them if its table compares whole models.
    """
    declared = inputs.declared["comparison"]
    by_run: dict[tuple[str, str, str, str, str], list[Compared]] = {}
    for table in tables:
        for row in table.rows:
            for dataset, figures in row.figures.items():
                # nnU-Net's row has no runs: no interval and no test
                results = inputs.of(row.runs.get(dataset, []))
                for metric in declared.get(dataset, ()):
                    figure = figures.get(metric, Figure())
                    if figure.measured is None or not results:
                        continue
                    if figure.published is None and table.key not in MAIN:
                        continue
                    run = results[0].run
                    key = (dataset, metric, run.view, run.cell, run.protocol)
                    name = _name(table, row)
                    entry = Compared((table.key,), name, dataset, metric, row, figure, results)
                    by_run.setdefault(key, []).append(entry)
    order = [(dataset, metric) for dataset, metrics in declared.items() for metric in metrics]
    rows = [_merged(entries) for entries in by_run.values()]
    return sorted(rows, key=lambda entry: order.index((entry.dataset, entry.metric)))


def _name(table: PaperTable, row: Row) -> str:
    """A row's label outside of its table; an ablation's label names the varied setting."""
    heading = table.spec["heading"]
    return row.label if table.spec["layout"] != "columns" else f"{heading} {row.label}"


def _merged(entries: list[Compared]) -> Compared:
    """The first row, with every table that shows it and the largest p."""
    first = entries[0]
    inferences = [entry.figure.inference for entry in entries if entry.figure.inference is not None]
    inference = None
    if inferences:
        tested = [entry.p for entry in inferences if entry.p is not None]
        inference = replace(inferences[0], p=max(tested, default=None))
    tables = tuple(dict.fromkeys(key for entry in entries for key in entry.tables))
    return replace(first, tables=tables, figure=replace(first.figure, inference=inference))


def comparison_sheet(inputs: Inputs, rows: Sequence[Compared]) -> Sheet:
    blocks: dict[str, list[Line]] = {}
    for row in rows:
        heading = inputs.declared["metrics"][row.metric]
        title = f"{inputs.heading(row.dataset)}, {heading['heading']}"
        title += " (voxels)" if heading["unit"] == "distance" else " (%)"
        figure, inference = row.figure, row.figure.inference
        star = inference is not None and inference.significant
        cells = plain(
            (
                row.label,
                ", ".join(row.tables),
                number(figure.published),
                number(figure.measured, figure.std),
                bracketed(inference.low, inference.high) if inference else DASH,
                signed(figure.difference),
                bracketed(*row.difference, sign=True),
            )
        )
        p = SheetCell(probability(row.p), star=star)
        blocks.setdefault(title, []).append(Line((*cells, p, SheetCell(row.tested or DASH))))
    results = [result for row in rows for result in row.results]
    notes = list(LEGEND)
    if any(isinstance(result, VolumeResult) for result in results):
        notes += volume_legend(set())
    return Sheet(
        name="comparison",
        caption=runs_caption(inputs, "Measured against published", notes, results),
        head=(
            "Row",
            "Tables",
            "publ.",
            "meas.",
            "95% interval",
            "diff.",
            "95% interval",
            "p",
            "of",
        ),
        blocks=tuple(Block(title, tuple(lines)) for title, lines in blocks.items()),
        spans=((Span("Value", 3, 5), Span("Measured minus published", 6, 7)),),
        left=2,
    )


def comparison_data(rows: Sequence[Compared]) -> Tidy:
    """Tidy: a line for each row and metric; percent (HD95: voxels), rounded to 6 decimals."""
    records = []
    for row in rows:
        figure, run = row.figure, row.results[0].run
        low, high = row.difference
        records.append(
            {
                "row": row.label,
                "tables": " ".join(row.tables),
                "dataset": row.dataset,
                "metric": row.metric,
                "view": run.view,
                "cell": run.cell,
                "protocol": run.protocol,
                "published_row": row.row.published,
                "published": figure.published,
                "measured": figure.measured,
                "std": figure.std,
                "low": figure.inference.low if figure.inference else None,
                "high": figure.inference.high if figure.inference else None,
                "difference": figure.difference,
                "difference_low": low,
                "difference_high": high,
                "p": row.p,
                "p_of": row.tested,
                "n_seeds": len(row.results),
                "metrics_files": ";".join(result.path for result in row.results),
            }
        )
    return tidy(records)
