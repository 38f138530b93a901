"""What each architecture of Table V costs: parameters, FLOPs, and speed and memory as measured."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.make.results.data import count, px
from reports.make.results.views import DASH
from reports.make.tables.captions import Caption
from reports.make.tables.frame import COST
from reports.make.tables.rows import Table
from reports.make.typeset.sheet import Block, Line, Sheet, Span, plain
from vmunet.errors import InputError

if TYPE_CHECKING:
    from pipeline.config.params import Params

PHASES = ("inference", "training")
# The fields of an architecture in speed.json: images a second, then bytes.
RATES = tuple(f"{phase}_images_per_second" for phase in PHASES)
PEAKS = tuple(f"{phase}_peak_bytes" for phase in PHASES)
AGAIN = "measure the speed again"


@dataclass(frozen=True)
class Speed:
    """metrics/<profile>/<view>/speed.json.

    Attributes:
        device: its name; of `CPU` memory is resident, else the GPU's.
        size, width: of the images, px; of the models, channels of the first stage.
        batch_size: by phase.
        architectures: by `<depths>-<decoder's depths>`: `RATES` and `PEAKS`, None where there is
            no measurement.
    """

    device: str
    threads: int
    size: int
    width: int
    batch_size: Mapping[str, int]
    architectures: Mapping[str, Mapping[str, float | None]]


def read_speed(root: Path, params: "Params") -> Speed | None:
    """The speed measured at the first view of grid.profiled; None where nothing was measured.

    Raises:
        InputError: the file is not JSON, lacks a field, or holds what is no measurement.
    """
    if not params.grid.profiled:
        return None
    path = f"metrics/{params.profile_name}/{params.grid.profiled[0]}/speed.json"
    try:
        content = json.loads((root / path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete it and {AGAIN}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a mapping; delete it and {AGAIN}")
    device, dims = content.get("device"), content.get("dims")
    if not isinstance(device, str) or not device:
        raise InputError(f"{path}: field 'device' is {device!r}, not a name; {AGAIN}")
    if not isinstance(dims, list) or not dims:
        raise InputError(f"{path}: field 'dims' is {dims!r}, not a list of widths; {AGAIN}")
    batches = _mapping(path, "batch_size", content.get("batch_size"))
    found = _mapping(path, "architectures", content.get("architectures"))
    return Speed(
        device=device,
        threads=_whole(path, "threads", content.get("threads")),
        size=_whole(path, "size", content.get("size")),
        width=_whole(path, "dims", dims[0]),
        batch_size={p: _whole(path, f"batch_size.{p}", batches.get(p)) for p in PHASES},
        architectures={
            name: _architecture(path, f"architectures.{name}", own) for name, own in found.items()
        },
    )


def _architecture(path: str, place: str, found: Any) -> dict[str, float | None]:
    own = _mapping(path, place, found)
    measured: dict[str, float | None] = {}
    for name in (*RATES, *PEAKS):
        value = own.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value) and value > 0):
            raise InputError(
                f"{path}: field '{place}.{name}' is {value!r}, not a number above 0; {AGAIN}"
            )
        measured[name] = value
    return measured


def _whole(path: str, field: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            f"{path}: field '{field}' is {value!r}, not a whole number of at least 1; {AGAIN}"
        )
    return value


def _mapping(path: str, field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: field '{field}' is {value!r}, not a mapping; {AGAIN}")
    return value


def architecture(cell: Any) -> str:
    """The name of a cell's architecture in speed.json: 2,2,2,2-2,2,2,1."""
    return "-".join(",".join(map(str, depths)) for depths in (cell.depths, cell.depths_decoder))


def cost_sheet(
    table: Table, params: "Params", published: Mapping[str, Any], speed: Speed | None
) -> Sheet:
    """A row for each architecture that `table` (the one with `extra: complexity`) shows."""
    lines = []
    for row in table.rows:
        if row.protocol == "paper" and row.cell:
            own = speed.architectures.get(architecture(params.cells[row.cell]), {}) if speed else {}
            rates = [_rate(own.get(name)) for name in RATES]
            peaks = [_mib(own.get(name)) for name in PEAKS]
            lines.append(Line(plain((row.label, *row.extra, *rates, *peaks))))
    head = ("publ.", "comp.", "publ.", "paper's way", "complete", *(("infer.", "train.") * 2))
    spans = (("#Params (M)", 2), ("FLOPs (G)", 3), ("Images/s", 2), ("Peak MiB", 2))
    places, column = [], 2
    for text, width in spans:
        places.append(Span(text, column, column + width - 1))
        column += width
    return Sheet(
        name=f"{table.name}-cost",
        caption=_caption(table, params, published["settings"], speed),
        head=(table.spec["heading"], *head),
        blocks=(Block("", tuple(lines)),),
        spans=(tuple(places),),
    )


def _caption(
    table: Table, params: "Params", settings: Mapping[str, Any], speed: Speed | None
) -> Caption:
    width, size = settings["dims"][0], settings["size"]
    trained = params.profile.train.dims[0]
    notes = [
        "FLOPs are multiply-accumulates of one image: the paper's way (linear, convolution and "
        "norm layers), and complete, with SS2D's projections and scan. The paper gives neither "
        "speed nor memory.",
    ]
    if speed is None:
        notes.append("Speed and memory were not measured: dashes.")
    else:
        batches = speed.batch_size
        notes.append(
            f"Images/s: images a second. Speed and peak memory: measured on {speed.device} with "
            f"{count(speed.threads, 'thread')}, with models of width {speed.width} at "
            f"{px(speed.size, speed.size)}, batch size {batches['inference']} in inference and "
            f"{batches['training']} in training."
        )
        notes.append(
            "Memory is the peak beyond what was held before the model was made: of the process's "
            "resident memory."
            if speed.device.upper().startswith("CPU")
            else "Memory is the peak of what the model and its steps allocate on the GPU."
        )
    return Caption(
        title=f"{table.spec['title']}: cost",
        warning="",
        text=f"Profile {params.profile_name}. #Params and FLOPs are computed at the paper's width "
        f"{width} and {px(size, size)}; the models trained here have width {trained}.",
        legend=("publ.: as the paper reports; comp.: computed here.",),
        notes=tuple(notes),
    )


def _rate(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mib(value: float | None) -> str:
    return DASH if value is None else f"{value / 2**20:.0f}"


def cost_frame(table: Table, params: "Params", speed: Speed | None) -> pd.DataFrame:
    """Tidy: a line for each architecture; empty where there is no figure."""
    records = []
    for row in table.rows:
        if row.protocol == "paper" and row.cell:
            name = architecture(params.cells[row.cell])
            own = speed.architectures.get(name, {}) if speed else {}
            record: dict[str, Any] = {"row": row.label, "cell": row.cell, "architecture": name}
            record |= {
                n: None if text == DASH else text for n, text in zip(COST, row.extra, strict=True)
            }
            record |= {field: own.get(field) for field in (*RATES, *PEAKS)}
            record |= {
                field: getattr(speed, field) if speed else None
                for field in ("device", "threads", "size", "width")
            }
            record |= {
                f"{phase}_batch_size": speed.batch_size[phase] if speed else None
                for phase in PHASES
            }
            records.append(record)
    return pd.DataFrame(records).round(6)
