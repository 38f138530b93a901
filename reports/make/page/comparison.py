"""The main comparison on the page's first screen: a line for each model, drawn on one scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from reports.make.main_comparison import MainBlock, MainRow, main_blocks, main_title
from reports.make.page.layout import DASH, PageCell, Source
from reports.make.page.tables import run_sources
from reports.make.report import Report
from reports.make.typeset.sheet import Origin
from reports.make.typeset.words import number

# The places of the scale's ends, in percent of the width; their labels need some room.
START, END = 5.0, 95.0


@dataclass(frozen=True)
class Scale:
    """A scale from `low` to `high` percent with a label every `step`."""

    low: int
    high: int
    step: int

    def place(self, value: float | None) -> float | None:
        """Where a value is drawn, in percent of the width; None without a value."""
        if value is None:
            return None
        part = (value - self.low) / (self.high - self.low)
        return round(START + (END - START) * part, 2)

    @property
    def ticks(self) -> list[tuple[int, float | None]]:
        """Each label and its place."""
        labels = range(self.low, self.high + 1, self.step)
        return [(label, self.place(label)) for label in labels]


@dataclass(frozen=True)
class Line:
    """A model: its figures, whether it is VM-UNet, and the figures' places on the scale."""

    label: str
    published: str
    measured: PageCell
    ours: bool
    published_at: float | None
    measured_at: float | None
    low_at: float | None
    high_at: float | None


@dataclass(frozen=True)
class Group:
    """The models of one dataset; `table` is the key of the whole table."""

    origin: Origin
    table: str
    metric: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    title: str
    scale: Scale
    groups: tuple[Group, ...]


def comparison(report: Report) -> Comparison | None:
    """The main comparison, all datasets on one scale; None if nothing was measured."""
    blocks = main_blocks(report)
    if not blocks:
        return None
    scale = scale_of([value for block in blocks for row in block.rows for value in _values(row)])
    links = run_sources(report)
    return Comparison(
        main_title(blocks), scale, tuple(_group(block, scale, links) for block in blocks)
    )


def scale_of(values: list[float]) -> Scale:
    """A scale of round numbers that holds all values, percent."""
    step = 10 if max(values) - min(values) <= 40 else 20
    low, high = step * math.floor(min(values) / step), step * math.ceil(max(values) / step)
    return Scale(low, max(high, low + step), step)


def _values(row: MainRow) -> list[float]:
    values = (row.published, row.figure.measured, *row.bounds)
    return [value for value in values if value is not None]


def _group(block: MainBlock, scale: Scale, links: Mapping[str, Source]) -> Group:
    lines = []
    for row in block.rows:
        low, high = row.bounds
        figure = PageCell(
            number(row.figure.measured, row.figure.std),
            small=() if low is None else (row.interval,),
            sources=tuple(links[name] for name in row.runs),
        )
        lines.append(
            Line(
                row.label,
                DASH if row.published is None else number(row.published),
                figure,
                row.ours,
                *map(scale.place, (row.published, row.figure.measured, low, high)),
            )
        )
    return Group(block.origin, block.table, block.metric, tuple(lines))
