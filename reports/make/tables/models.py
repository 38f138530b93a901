"""The cost of the models of Tables I and II: parameters, FLOPs, measured speed and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.make.report import OURS, PaperTable
from reports.make.results.costs import ModelCost
from reports.make.results.speed import Speed
from reports.make.tables.cost import architecture, speed_notes, speed_of, speed_record, speed_texts
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Caption, Line, Sheet, Span, plain
from reports.make.typeset.words import DASH

PUBLISHED = "publ.: quoted, as authors print them: {}; comp.: computed here."
NOTES = (
    "FLOPs are multiply-accumulates of one image. As thop counts them, whose figures these papers "
    "print: convolutions, linear layers, and 4 for each element of a batch norm or LayerNorm. thop "
    "counts a transposed convolution by its output, 4 times too many at stride 2 (8 in 3D), and "
    "misses attention's products and VM-UNet's scan. Complete: every convolution and matrix "
    "product, and the scan.",
    "thop leaves out the parameters of a GroupNorm: MALUNet's printed 0.175 M are 0.178 M. Here "
    "parameters are all that the published model has, used or not.",
)


@dataclass(frozen=True)
class ModelLine:
    """One model of one table: what authors print, what was counted, and what was measured.

    `name` is the model's in `vmunet.models.MODELS`; `printed` has `params` in M and `flops` in G,
    or less.
    """

    table: str
    label: str
    name: str
    printed: Mapping[str, float]
    cost: ModelCost
    measured: Mapping[str, float | None]


def model_lines(
    tables: Sequence[PaperTable],
    inputs: Inputs,
    costs: Mapping[str, Mapping[str, ModelCost]],
    speed: Speed | None,
) -> list[ModelLine]:
    """The counted models of each table, in the order of its rows, each once."""
    lines = []
    for table in tables:
        counted = dict(costs.get(table.key, {}))
        for row in table.rows:
            cost = counted.pop(row.model, None)
            if cost is None:
                continue
            ours = inputs.params.cells[row.cell] if row.model == OURS and row.cell else None
            key = architecture(ours) if ours else row.model
            printed = inputs.published["costs"][table.key].get(row.model, {})
            measured = speed_of(speed, key)
            lines.append(ModelLine(table.key, row.label, row.model, printed, cost, measured))
    return lines


def models_sheet(inputs: Inputs, rows: Sequence[ModelLine], speed: Speed | None) -> Sheet:
    """A block for each table, a row for each of its models."""
    blocks: dict[str, list[Line]] = {}
    for row in rows:
        cost = row.cost
        texts = (
            row.label,
            _by(cost.sides),
            _amount(row.printed.get("params")),
            _amount(cost.parameters / 1e6),
            _amount(row.printed.get("flops")),
            _amount(cost.macs_paper / 1e9),
            _amount(cost.macs_complete / 1e9),
            *speed_texts(row.measured),
        )
        title = f"Table {row.table}, {_classes(cost.classes)}"
        blocks.setdefault(title, []).append(Line(plain(texts)))
    head = ("Model", "Input", "publ.", "comp.", "publ.", "thop's way", "complete")
    spans = (("#Params (M)", 3, 4), ("FLOPs (G)", 5, 7), ("Images/s", 8, 9), ("Peak MiB", 10, 11))
    return Sheet(
        name="models",
        caption=_caption(inputs, speed),
        head=(*head, *("infer.", "train.") * 2),
        blocks=tuple(Block(title, tuple(lines)) for title, lines in blocks.items()),
        spans=(tuple(Span(*span) for span in spans),),
        left=2,
    )


def _caption(inputs: Inputs, speed: Speed | None) -> Caption:
    sources = [of["source"] for of in inputs.published["costs"].values()]
    trained = ""
    if speed:
        wide = "" if speed.width_factor == 1 else f"{speed.width_factor:g} times as wide "
        trained = (
            f"VM-UNet of width {speed.width} and the other models {wide}as published, for 1 class "
            "(V-Net: 2, and cubes in place of images, as many as have the voxels of a batch)"
        )
    return Caption(
        title="Models of Tables I and II: cost",
        text=f"Profile {inputs.params.profile_name}. #Params and FLOPs are computed at the "
        "published width.",
        origins=(),
        notes=(PUBLISHED.format("; ".join(sources)), *NOTES, *speed_notes(speed, trained)),
        legend=(),
    )


def _by(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _classes(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _amount(value: float | None) -> str:
    """Two decimals, or three below 1."""
    if value is None:
        return DASH
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def models_data(rows: Sequence[ModelLine], speed: Speed | None) -> Tidy:
    """Tidy: a line for each model of each table; speed and memory as measured, for 1 class."""
    records = []
    for row in rows:
        record: dict[str, Any] = {
            "table": row.table,
            "row": row.label,
            "model": row.name,
            "input": _by(row.cost.sides),
            "classes": row.cost.classes,
            "published_params_M": row.printed.get("params"),
            "params_M": row.cost.parameters / 1e6,
            "published_flops_G": row.printed.get("flops"),
            "macs_thop_G": row.cost.macs_paper / 1e9,
            "macs_complete_G": row.cost.macs_complete / 1e9,
        }
        measured = speed_record(speed, row.measured)
        record |= {name if name != "size" else "speed_size": measured[name] for name in measured}
        records.append(record | {"width_factor": speed.width_factor if speed else None})
    return tidy(records)
