"""Every table of the report, in order: its printed form, and its tidy CSV."""

from collections.abc import Iterator, Sequence

from reports.make.report import PaperTable, Part
from reports.make.results.costs import read_costs
from reports.make.results.cross import read_cross
from reports.make.results.speed import read_speed
from reports.make.tables.agreement import agreed, agreement_data, agreement_sheet
from reports.make.tables.captions import caption
from reports.make.tables.comparison import compared, comparison_data, comparison_sheet
from reports.make.tables.confusion import confusion_data, confusion_sheet, matrices
from reports.make.tables.cost import cost_data, cost_sheet
from reports.make.tables.cross import cross_data, cross_sheet
from reports.make.tables.inputs import Inputs
from reports.make.tables.models import model_lines, models_data, models_sheet
from reports.make.tables.organs import organs_data, organs_sheet
from reports.make.tables.paper import paper_sheet
from reports.make.tables.paper_data import paper_data
from reports.make.tables.protocols import pairs, protocols_data, protocols_sheet
from reports.make.tables.recipes import recipes, recipes_data, recipes_sheet
from reports.make.tables.reproductions import (
    reproductions,
    reproductions_data,
    reproductions_sheet,
)
from reports.make.tables.sound import sound_data, sound_sheets
from reports.make.tables.strata import strata_data, strata_sheet, stratified
from reports.make.tidy import Tidy
from reports.make.typeset.sheet import Sheet


def parts(inputs: Inputs, tables: Sequence[PaperTable]) -> Iterator[Part]:
    """Tables I to VI, then the tables that the paper does not have; no table without a row."""
    for table in tables:
        yield _paper(inputs, table)
    speed = read_speed(inputs.root, inputs.params)
    for table in tables:
        if table.spec.get("extra") == "complexity":
            yield _whole(cost_sheet(table, inputs, speed), cost_data(table, inputs, speed))
    costs = read_costs(inputs.root, inputs.params)
    if models := model_lines(tables, inputs, costs, speed):
        yield _whole(models_sheet(inputs, models, speed), models_data(models, speed))
    if shown := recipes(tables, inputs):
        # so many words are not for a terminal
        yield Part(recipes_sheet(shown), (), recipes_data(shown))
    if rows := compared(tables, inputs):
        yield _whole(comparison_sheet(inputs, rows), comparison_data(rows))
        if settled := agreed(rows, inputs):
            yield _whole(agreement_sheet(inputs, settled), agreement_data(settled))
    if confusions := matrices(tables, inputs):
        yield _whole(confusion_sheet(inputs, confusions), confusion_data(confusions))
    if protocol_pairs := pairs(inputs):
        yield _whole(protocols_sheet(inputs, protocol_pairs), protocols_data(protocol_pairs))
    if cross := read_cross(inputs.root, inputs.params, inputs.ordered):
        yield _whole(cross_sheet(inputs, cross), cross_data(cross))
    if reproduced := reproductions(tables, inputs.published):
        yield _whole(reproductions_sheet(inputs, reproduced), reproductions_data(reproduced))
    if inputs.images:
        data = sound_data(inputs.images)
        for index, sheet in enumerate(sound_sheets(inputs)):
            yield _whole(sheet, None if index else data)
    if strata := stratified(inputs):
        yield _whole(strata_sheet(inputs, strata), strata_data(strata))
    if inputs.volumes:
        yield _whole(organs_sheet(inputs), organs_data(inputs.volumes))


def _paper(inputs: Inputs, table: PaperTable) -> Part:
    """A part of one of the paper's tables; Markdown prints its datasets one by one."""
    table_caption = caption(table, inputs)
    return Part(
        sheet=paper_sheet(table, inputs.declared, table_caption),
        terminal=tuple(
            (origin.tagged, paper_sheet(table, inputs.declared, table_caption, [dataset]))
            for dataset, origin in zip(table.spec["datasets"], table_caption.origins, strict=True)
        ),
        data=paper_data(table, inputs),
        table=table,
    )


def _whole(sheet: Sheet, data: Tidy | None) -> Part:
    """A part that Markdown prints in one piece."""
    return Part(sheet, (("", sheet),), data)
