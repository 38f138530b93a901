"""Every table of the report, in order: what it prints, and the same as tidy CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.table_captions import caption
from stages.table_comparison import compared, comparison_frame, comparison_sheet
from stages.table_cost import cost_frame, cost_sheet, read_speed
from stages.table_cross import cross_frame, cross_sheet, read_cross
from stages.table_frame import frame
from stages.table_layout import paper_sheet
from stages.table_metrics import ImageResult, Result, VolumeResult
from stages.table_organs import organs_frame, organs_sheet
from stages.table_protocols import Paired, pairs, protocols_frame, protocols_sheet
from stages.table_reproductions import (
    reproductions,
    reproductions_frame,
    reproductions_sheet,
)
from stages.table_rows import Table
from stages.table_sheet import Sheet
from stages.table_sound import sound_frame, sound_sheets

if TYPE_CHECKING:
    from pipeline.params import Params


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
