"""The report's main comparison: the measured rows of Tables I and II beside the published ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.make.report import OURS, Figure, Report, Row
from reports.make.typeset.sheet import Origin
from reports.make.typeset.words import bracketed

MAIN = ("I", "II")  # the tables that compare whole models
SAME_IMAGES = (
    "An interval cannot say whether the published figure is reproduced: that was measured on the "
    "same test images, and the interval speaks of others."
)


@dataclass(frozen=True)
class MainRow:
    """A measured model; `published` is None if the paper reports no such run.

    `ours` tells whether it is VM-UNet.
    """

    label: str
    published: float | None
    figure: Figure
    runs: tuple[str, ...]
    ours: bool

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The ends of the measured figure's 95% interval; None without statistics."""
        inference = self.figure.inference
        return (inference.low, inference.high) if inference else (None, None)

    @property
    def interval(self) -> str:
        return bracketed(*self.bounds)


@dataclass(frozen=True)
class MainBlock:
    """The measured models of one dataset, by its table's first metric in percent."""

    origin: Origin
    table: str
    metric: str
    rows: tuple[MainRow, ...]


def main_blocks(report: Report) -> list[MainBlock]:
    """A block for each dataset of Tables I and II with a measured row."""
    blocks = []
    for table in (part.table for part in report.parts if part.table):
        if table.key not in MAIN:
            continue
        percents = [m for m in table.spec["metrics"] if report.metrics[m]["unit"] == "percent"]
        metric = percents[0]
        for dataset in table.spec["datasets"]:
            rows = [_row(row, dataset, metric) for row in table.rows if row.runs.get(dataset)]
            if rows:
                heading = report.metrics[metric]["heading"]
                block = MainBlock(report.origins[dataset], table.name, heading, tuple(rows))
                blocks.append(block)
    return blocks


def main_title(blocks: Sequence[MainBlock]) -> str:
    """The comparison's heading."""
    alone = all(row.ours for block in blocks for row in block.rows)
    return f"{'VM-UNet' if alone else 'Every model'}, measured against published"


def _row(row: Row, dataset: str, metric: str) -> MainRow:
    figure = row.figures[dataset][metric]
    published = figure.published if row.protocol == "paper" else None
    return MainRow(row.label, published, figure, tuple(row.runs[dataset]), row.model == OURS)
