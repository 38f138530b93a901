"""The cost of each architecture of Table V: parameters, FLOPs, measured speed and memory."""

from collections.abc import Iterator, Mapping
from typing import Any

from reports.make.report import PaperTable, Row
from reports.make.results.speed import PEAKS, PHASES, RATES, Speed
from reports.make.tables.inputs import Inputs
from reports.make.tables.paper_data import COST
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Caption, Line, Sheet, Span, plain
from reports.make.typeset.words import DASH, count, px


def architecture(cell: Any) -> str:
    """The name of a cell's architecture in speed.json: 2,2,2,2-2,2,2,1."""
    return "-".join(",".join(map(str, depths)) for depths in (cell.depths, cell.depths_decoder))


def _measured(
    table: PaperTable, inputs: Inputs, speed: Speed | None
) -> Iterator[tuple[Row, str, dict[str, float | None]]]:
    """Each architecture of `table` once: its row, its name and its measurements."""
    for row in table.rows:
        if row.protocol == "paper" and row.cell:
            name = architecture(inputs.params.cells[row.cell])
            yield row, name, speed_of(speed, name)


def cost_sheet(table: PaperTable, inputs: Inputs, speed: Speed | None) -> Sheet:
    """A row for each architecture that `table` (the one with `extra: complexity`) shows."""
    lines = []
    for row, _, measured in _measured(table, inputs, speed):
        lines.append(Line(plain((row.label, *row.extra, *speed_texts(measured)))))
    head = ("publ.", "comp.", "publ.", "paper's way", "complete", *(("infer.", "train.") * 2))
    spans = (("#Params (M)", 2), ("FLOPs (G)", 3), ("Images/s", 2), ("Peak MiB", 2))
    places, column = [], 2
    for text, width in spans:
        places.append(Span(text, column, column + width - 1))
        column += width
    return Sheet(
        name=f"{table.name}-cost",
        caption=_caption(table, inputs, speed),
        head=(table.spec["heading"], *head),
        blocks=(Block("", tuple(lines)),),
        spans=(tuple(places),),
    )


def _caption(table: PaperTable, inputs: Inputs, speed: Speed | None) -> Caption:
    params, settings = inputs.params, inputs.published["settings"]
    width, size = settings["dims"][0], settings["size"]
    trained = params.profile.train.dims[0]
    notes = [
        "FLOPs are multiply-accumulates of one image: the paper's way (linear, convolution and "
        "norm layers), and complete, with SS2D's projections and scan. The paper gives neither "
        "speed nor memory.",
    ]
    notes += speed_notes(speed, f"models of width {speed.width}" if speed else "")
    return Caption(
        title=f"{table.spec['title']}: cost",
        text=f"Profile {params.profile_name}. #Params and FLOPs are computed at the paper's width "
        f"{width} and {px(size, size)}; the models trained here have width {trained}.",
        origins=(),
        notes=("publ.: as the paper reports; comp.: computed here.", *notes),
        legend=(),
    )


def speed_notes(speed: Speed | None, models: str) -> list[str]:
    """How speed and memory were measured; `models` says how wide these were."""
    if speed is None:
        return ["Speed and memory were not measured: dashes."]
    batches = speed.batch_size
    return [
        f"Images/s: images a second. Speed and peak memory: measured on {speed.device} with "
        f"{count(speed.threads, 'thread')}, with {models} at {px(speed.size, speed.size)}, batch "
        f"size {batches['inference']} in inference and {batches['training']} in training.",
        "Memory is the peak beyond what was held before the model was made: of the process's "
        "resident memory."
        if speed.device.upper().startswith("CPU")
        else "Memory is the peak of what the model and its steps allocate on the GPU.",
    ]


def speed_of(speed: Speed | None, name: str) -> dict[str, float | None]:
    """The measurements of an architecture or model, None where there is none."""
    measured = speed.architectures.get(name, {}) if speed else {}
    return {field: measured.get(field) for field in (*RATES, *PEAKS)}


def speed_texts(measured: Mapping[str, float | None]) -> list[str]:
    """Images a second and MiB, as they are printed."""
    rates, peaks = [measured[field] for field in RATES], [measured[field] for field in PEAKS]
    return [*map(_rate, rates), *map(_mib, peaks)]


def speed_record(speed: Speed | None, measured: Mapping[str, float | None]) -> dict[str, Any]:
    """The measurements, and how they were made, as columns of a CSV."""
    record = dict[str, Any](measured)
    for field in ("device", "threads", "size", "width"):
        record[field] = getattr(speed, field, None)
    for phase in PHASES:
        record[f"{phase}_batch_size"] = speed.batch_size[phase] if speed else None
    return record


def _rate(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mib(value: float | None) -> str:
    return DASH if value is None else f"{value / 2**20:.0f}"


def cost_data(table: PaperTable, inputs: Inputs, speed: Speed | None) -> Tidy:
    """Tidy: a line for each architecture; empty if there is no figure."""
    records = []
    for row, name, measured in _measured(table, inputs, speed):
        record: dict[str, Any] = {"row": row.label, "cell": row.cell, "architecture": name}
        for field, text in zip(COST, row.extra, strict=True):
            record[field] = None if text == DASH else text
        records.append(record | speed_record(speed, measured))
    return tidy(records)
