"""Every table of the report, in order: what it prints, and the same as tidy CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.cross import read_cross
from reports.make.results.metrics import ImageResult, Result, VolumeResult
from reports.make.tables.captions import caption
from reports.make.tables.comparison import compared, comparison_frame, comparison_sheet
from reports.make.tables.cost import cost_frame, cost_sheet, read_speed
from reports.make.tables.cross import cross_frame, cross_sheet
from reports.make.tables.frame import frame
from reports.make.tables.layout import paper_sheet
from reports.make.tables.organs import organs_frame, organs_sheet
from reports.make.tables.protocols import Paired, pairs, protocols_frame, protocols_sheet
from reports.make.tables.reproductions import (
    reproductions,
    reproductions_frame,
    reproductions_sheet,
)
from reports.make.tables.rows import Table
from reports.make.tables.sound import sound_frame, sound_sheets
from reports.make.typeset.sheet import Sheet

if TYPE_CHECKING:
    from pipeline.config.params import Params


@dataclass(frozen=True)
class Part:
    """One table.

    Attributes:
        sheet: as LaTeX prints it.
        terminal: title and sheet of each piece that Markdown prints it in.
        frame: its CSV, None where another part's holds its figures.
        numeral: of the paper's six tables.
    """

    sheet: Sheet
    terminal: tuple[tuple[str, Sheet], ...]
    frame: pd.DataFrame | None
    numeral: str = ""


@dataclass(frozen=True)
class Report:
    """What the tables are made from."""

    root: Path
    params: "Params"
    declared: Mapping[str, Any]
    published: Mapping[str, Any]
    results: Sequence[Result]
    tables: Sequence[Table]
    paired: Paired | None

    def parts(self) -> list[Part]:
        """Tables I to VI, then what the paper does not have; nothing that has no row."""
        return [*self._paper(), *self._cost(), *self._compared(), *self._honest()]

    def _paper(self) -> Iterator[Part]:
        for table in self.tables:
            made = caption(table, self.params, self.declared, self.published)
            yield Part(
                paper_sheet(table, self.declared, made),
                tuple(
                    (self.declared["datasets"][one], paper_sheet(table, self.declared, made, [one]))
                    for one in table.spec["datasets"]
                ),
                frame(table),
                table.key,
            )

    def _cost(self) -> Iterator[Part]:
        speed = read_speed(self.root, self.params)
        for table in self.tables:
            if table.spec.get("extra") == "complexity":
                sheet = cost_sheet(table, self.params, self.published, speed)
                yield _whole(sheet, cost_frame(table, self.params, speed))

    def _compared(self) -> Iterator[Part]:
        about = self.params, self.declared, self.published
        rows = compared(self.tables, self.declared)
        if rows:
            yield _whole(comparison_sheet(*about, rows), comparison_frame(rows))
        found = pairs(self.params, self.declared, self.results, self.paired)
        if found:
            yield _whole(protocols_sheet(*about, found), protocols_frame(found))
        cross = read_cross(self.root, self.params, self.declared, self._images)
        if cross:
            yield _whole(cross_sheet(*about, cross), cross_frame(cross))
        others = reproductions(self.tables, self.declared, self.published)
        if others:
            yield _whole(reproductions_sheet(*about, others), reproductions_frame(others))

    def _honest(self) -> Iterator[Part]:
        about = self.params, self.declared, self.published
        if self._images:
            whole = sound_frame(self._images)
            for index, sheet in enumerate(sound_sheets(*about, self._images)):
                yield _whole(sheet, None if index else whole)
        volumes = [result for result in self.results if isinstance(result, VolumeResult)]
        if volumes:
            yield _whole(organs_sheet(*about, volumes), organs_frame(volumes))

    @property
    def _images(self) -> list[ImageResult]:
        return [result for result in self.results if isinstance(result, ImageResult)]


def _whole(sheet: Sheet, table: pd.DataFrame | None) -> Part:
    """A part that Markdown prints in one piece."""
    return Part(sheet, (("", sheet),), table)
