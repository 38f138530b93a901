"""Every measured row beside the paper's figure: interval, difference, verdict, test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.make.report import Figure, PaperTable, Row
from reports.make.results.metrics import Result, VolumeResult
from reports.make.tables.captions import runs_caption, volume_legend
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, SheetCell, Span, plain
from reports.make.typeset.words import DASH, bracketed, number, probability, signed

LEGEND = (
    "Interval: 95% bootstrap over the test images (volumes: cases), with the mean over the seeds "
    "in each resample; it says nothing of the randomness of training. The difference is measured "
    "minus published, its interval that of the measured figure.",
    "Verdict: the published figure lies in the interval (inside), or the whole interval lies above "
    "or below it. For HD95 less is better.",
    "p: paired permutation test against VM-UNet's row under the paper protocol, corrected by Holm "
    "within the table, dataset and metric; of a row in several tables the largest. A dash where "
    "there is nothing to test. A star: p < 0.05.",
    "Width, epochs and data are the caption's, not the paper's, where the two differ: then neither "
    "difference nor verdict tells whether the paper's figure can be reproduced.",
    "A row of several tables stands here once; the paper reports no run under the sound protocol, "
    "which is compared with the figure of its row.",
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
    def verdict(self) -> str | None:
        return self.figure.inference.verdict if self.figure.inference else None

    @property
    def p(self) -> float | None:
        return self.figure.inference.p if self.figure.inference else None


def compared(tables: Sequence[PaperTable], inputs: Inputs) -> list[Compared]:
    """Each measured row with a published figure, by dataset and metric, a cell's runs once."""
    declared = inputs.declared["comparison"]
    by_run: dict[tuple[str, str, str, str, str], list[Compared]] = {}
    for table in tables:
        for row in table.rows:
            for dataset, figures in row.figures.items():
                results = inputs.of(row.runs.get(dataset, []))
                for metric in declared.get(dataset, ()):
                    figure = figures.get(metric, Figure())
                    if figure.measured is None or figure.published is None:
                        continue
                    run = results[0].run
                    key = (dataset, metric, run.view, run.cell, run.protocol)
                    name = _name(table, row)
                    one = Compared((table.key,), name, dataset, metric, row, figure, results)
                    by_run.setdefault(key, []).append(one)
    order = [(dataset, metric) for dataset, metrics in declared.items() for metric in metrics]
    rows = [_merged(shown) for shown in by_run.values()]
    return sorted(rows, key=lambda one: order.index((one.dataset, one.metric)))


def _name(table: PaperTable, row: Row) -> str:
    """A label that stands alone: of an ablation with what it varies."""
    heading = table.spec["heading"]
    return row.label if table.spec["layout"] != "columns" else f"{heading} {row.label}"


def _merged(shown: list[Compared]) -> Compared:
    """The first row, with every table that shows it and the largest p."""
    first = shown[0]
    known = [one.figure.inference for one in shown if one.figure.inference is not None]
    inference = None
    if known:
        tested = [one.p for one in known if one.p is not None]
        inference = replace(known[0], p=max(tested, default=None))
    tables = tuple(dict.fromkeys(key for one in shown for key in one.tables))
    return replace(first, tables=tables, figure=replace(first.figure, inference=inference))


def comparison_sheet(inputs: Inputs, rows: Sequence[Compared]) -> Sheet:
    blocks: dict[str, list[Line]] = {}
    for one in rows:
        heading = inputs.declared["metrics"][one.metric]
        title = f"{inputs.names[one.dataset]}, {heading['heading']}"
        title += " (voxels)" if heading["unit"] == "distance" else " (%)"
        figure, known = one.figure, one.figure.inference
        star = known is not None and known.significant
        cells = plain(
            (
                one.label,
                ", ".join(one.tables),
                number(figure.published),
                number(figure.measured, figure.std),
                bracketed(known.low, known.high) if known else DASH,
                signed(figure.difference),
                bracketed(*one.difference, sign=True),
                one.verdict or DASH,
            )
        )
        blocks.setdefault(title, []).append(
            Line((*cells, SheetCell(probability(one.p), star=star)))
        )
    results = [result for one in rows for result in one.results]
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
            "verdict",
            "p",
        ),
        blocks=tuple(Block(title, tuple(lines)) for title, lines in blocks.items()),
        spans=((Span("Value", 3, 5), Span("Measured minus published", 6, 8)),),
        left=2,
    )


def comparison_data(rows: Sequence[Compared]) -> Tidy:
    """Tidy: a line for each row and metric; percent (HD95: voxels), rounded to 6 decimals."""
    records = []
    for one in rows:
        figure, run = one.figure, one.results[0].run
        low, high = one.difference
        records.append(
            {
                "row": one.label,
                "tables": " ".join(one.tables),
                "dataset": one.dataset,
                "metric": one.metric,
                "view": run.view,
                "cell": run.cell,
                "protocol": run.protocol,
                "published_row": one.row.published,
                "published": figure.published,
                "measured": figure.measured,
                "std": figure.std,
                "low": figure.inference.low if figure.inference else None,
                "high": figure.inference.high if figure.inference else None,
                "difference": figure.difference,
                "difference_low": low,
                "difference_high": high,
                "verdict": one.verdict,
                "p": one.p,
                "n_seeds": len(one.results),
                "metrics_files": ";".join(result.path for result in one.results),
            }
        )
    return tidy(records)
