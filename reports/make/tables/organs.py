"""The honest evaluation of volumes: every organ of every run under both conventions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from reports.make.results.metrics import VolumeResult
from reports.make.results.scores import OrganScores
from reports.make.tables.captions import HD95, T_MAX, runs_caption
from reports.make.tables.inputs import Inputs
from reports.make.tidy import Tidy, tidy
from reports.make.typeset.sheet import Block, Line, Sheet, Span, plain
from reports.make.typeset.words import number, percent

MEAN = "mean"
# The convention and its columns, after the organ's.
HEADINGS = (
    ("Paper's convention", ("Dice", "HD95 (voxels)")),
    (
        "Sound convention",
        ("Dice", "n", "HD95 (mm)", "n", "penal.", "NSD", "n", "absent in both"),
    ),
)


NOTES = (
    "Both conventions score the same predictions, case by case and organ by organ at the volumes' "
    "own pixels. An organ's figure is a mean over the cases, the last row's the mean of the "
    "organs' figures. Dice and NSD are percentages.",
    "Paper's convention, as the published code computes it: (Dice, HD95) is (100, 0) where an "
    "organ is predicted but absent, (0, 0) where it is missed or absent in both; HD95 in voxels, "
    "whatever their shape.",
    "Sound convention: an organ that is absent in both is left out and counted (last row: over "
    "all organs); one that is predicted but absent, or missed, has Dice 0 and NSD 0 but no HD95, "
    "so that a distance is to be read with its n. Penal.: HD95 in mm with the volume's diagonal "
    "for an organ that is missed or only predicted.",
    HD95,
    "n counts the cases that define the figure before it (last row: the organs that do).",
)
UNKNOWN_SPACING = (
    "Where voxel spacing is not known, as in TransUNet's prepared arrays, HD95 in mm and NSD are "
    "not defined: a dash."
)


def organs_sheet(inputs: Inputs) -> Sheet:
    """A block for each run, under the run's name; a row for each organ and one for their mean."""
    from vmunet.evaluation.volume_metrics import TOLERANCE

    nsd = (
        "NSD: normalised surface distance, the part of both surfaces that lies within "
        f"{TOLERANCE:g} mm of the other."
    )
    results = [result for result in inputs.ordered if isinstance(result, VolumeResult)]
    unknown = () if all(result.spacing_known for result in results) else (UNKNOWN_SPACING,)
    title, row_rule = "Honest evaluation of volumes: both conventions", "each with its own block"
    notes = (*NOTES, nsd, *unknown, T_MAX)
    spans, head = [], ["Organ"]
    for convention, columns in HEADINGS:
        spans.append(Span(convention, len(head) + 1, len(head) + len(columns)))
        head += columns
    return Sheet(
        name="organs",
        caption=runs_caption(inputs, title, notes, results, row_rule),
        head=tuple(head),
        blocks=tuple(
            Block(
                f"{inputs.dataset_at_size(result)}: {result.run.cell}, "
                f"{result.run.protocol} protocol, seed {result.run.seed}",
                tuple(
                    Line(plain(_row(name, scores)), apart=name == MEAN)
                    for name, scores in _all(result).items()
                ),
                whole=True,
            )
            for result in results
        ),
        spans=(tuple(spans),),
    )


def _all(result: VolumeResult) -> dict[str, OrganScores]:
    return {**result.organs, MEAN: result.mean}


def _row(name: str, scores: OrganScores) -> list[str]:
    return [
        name.replace("-", " "),
        number(percent(scores.paper_dice)),
        number(scores.paper_hd95),
        number(percent(scores.dice)),
        str(scores.dice_n),
        number(scores.hd95_mm),
        str(scores.hd95_n),
        number(scores.hd95_penalised_mm),
        number(percent(scores.nsd)),
        str(scores.nsd_n),
        str(scores.absent),
    ]


def organs_data(results: Sequence[VolumeResult]) -> Tidy:
    """Tidy: a line for each run and organ, and for the organs' mean (counts as in OrganScores).

    Dice and NSD are percentages, rounded to 6 decimals like the distances; empty if undefined.
    """
    records = []
    for result in results:
        run = result.run
        for name, scores in _all(result).items():
            record: dict[str, Any] = {
                "run": run.name,
                "dataset": result.dataset,
                "size": result.size,
                "cell": run.cell,
                "protocol": run.protocol,
                "seed": run.seed,
                "organ": name,
            }
            for field, value in asdict(scores).items():
                fraction = field in ("paper_dice", "dice", "nsd")
                name_here = "paper_hd95_voxels" if field == "paper_hd95" else field
                record[name_here] = percent(value) if fraction else value
            records.append(record | {"metrics_file": result.path})
    return tidy(records)
