"""The scores of a metrics file, checked field by field.

Images and volumes share the `paper` block's form, a number for each metric. Their `sound` blocks
differ: sizes with bootstrap intervals for images, organs with counts of cases for volumes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmunet.errors import InputError

SOUND_SIZES = ("training_size", "native_size")
SOUND_SCORES = ("miou", "mean_iou", "mean_dice", "thresholded_jaccard")
# The sound scores of an organ: the field, its unit, and the field that counts its cases.
ORGAN_SCORES = (
    ("dice", "percent", "dice_n"),
    ("hd95_mm", "distance", "hd95_n"),
    ("nsd", "percent", "nsd_n"),
)


@dataclass(frozen=True)
class Estimate:
    """A score with its 95% bootstrap interval over the test images: fractions 0..1 or None."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OrganScores:
    """Means over the test cases for one organ, or over the organs, under both conventions.

    Attributes:
        paper_dice, paper_hd95: fraction 0..1 and voxels.
        dice, nsd: fractions 0..1; None where no case defines them.
        hd95_mm: mm; None where no case defines it.
        dice_n, hd95_n, nsd_n: how many cases define each; of the mean, how many organs.
        absent: cases without the organ in truth and prediction; of the mean, their sum.
    """

    paper_dice: float
    paper_hd95: float
    dice: float | None
    dice_n: int
    hd95_mm: float | None
    hd95_n: int
    nsd: float | None
    nsd_n: int
    absent: int


def score(path: str, field: str, value: Any, unit: str = "percent") -> float:
    """A fraction 0..1, or a distance of at least 0. Raises InputError naming file and field."""
    high, words = (1, "in 0..1") if unit == "percent" else (math.inf, "of at least 0")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and 0 <= value <= high):
        raise InputError(
            f"{path}: field '{field}' is {value!r}, not a finite number {words}; "
            "evaluate the run again"
        )
    return float(value)


def paper_scores(path: str, paper: Mapping[str, Any], units: Mapping[str, str]) -> dict[str, float]:
    """The `paper` block's metrics that `units` names with their units."""
    return {name: score(path, f"paper.{name}", paper.get(name), units[name]) for name in units}


def image_scores(path: str, sound: Mapping[str, Any]) -> dict[str, dict[str, Estimate]]:
    """The `sound` block of images, by size (`SOUND_SIZES`) and score (`SOUND_SCORES`)."""
    found = {}
    for size in SOUND_SIZES:
        scores = _mapping(path, f"sound.{size}", sound.get(size))
        found[size] = {
            name: _estimate(path, f"sound.{size}", name, scores) for name in SOUND_SCORES
        }
    return found


def _estimate(path: str, place: str, name: str, scores: Mapping[str, Any]) -> Estimate:
    """A score and its interval; null is one that no test image defines."""
    intervals = scores.get("intervals")
    interval = intervals.get(name) if isinstance(intervals, dict) else None
    if name not in scores or not isinstance(interval, list) or len(interval) != 2:
        raise InputError(
            f"{path}: field '{place}' lacks '{name}' or its interval [low, high]; "
            "evaluate the run again"
        )
    fields = (f"{place}.{name}", *[f"{place}.intervals.{name}"] * 2)
    values = (scores[name], *interval)
    return Estimate(
        *(
            None if value is None else score(path, field, value)
            for field, value in zip(fields, values, strict=True)
        )
    )


def organ_scores(
    path: str, paper: Mapping[str, Any], sound: Mapping[str, Any], classes: Sequence[str]
) -> tuple[dict[str, OrganScores], OrganScores]:
    """Both blocks of volumes by organ, and their means over the organs."""
    cases = _count(path, "sound.cases", sound.get("cases"))
    if not isinstance(sound.get("spacing_known"), bool):
        raise InputError(
            f"{path}: field 'sound.spacing_known' is {sound.get('spacing_known')!r}, not true or "
            "false; evaluate the run again"
        )
    distances = _mapping(path, "paper.hd95_organs", paper.get("hd95_organs"))
    found = _mapping(path, "sound.organs", sound.get("organs"))
    organs = {}
    for name in classes:
        place = f"sound.organs.{name}"
        own = _mapping(path, place, found.get(name))
        counts = {n: _count(path, f"{place}.{n}", own.get(n), cases) for _, _, n in ORGAN_SCORES}
        organs[name] = OrganScores(
            paper_dice=score(path, f"paper.{name}", paper.get(name)),
            paper_hd95=score(
                path, f"paper.hd95_organs.{name}", distances.get(name), unit="distance"
            ),
            **_defined(path, place, own, counts),
            absent=_count(path, f"{place}.absent", own.get("absent"), cases),
        )
    defining = {
        n: sum(getattr(organ, name) is not None for organ in organs.values())
        for name, _, n in ORGAN_SCORES
    }
    mean = OrganScores(
        paper_dice=score(path, "paper.dsc", paper.get("dsc")),
        paper_hd95=score(path, "paper.hd95", paper.get("hd95"), unit="distance"),
        **_defined(path, "sound", sound, defining),
        absent=sum(organ.absent for organ in organs.values()),
    )
    return organs, mean


def _defined(
    path: str, place: str, scores: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, Any]:
    """The sound scores with their counts; null where, and only where, nothing defines one."""
    found: dict[str, Any] = dict(counts)
    for name, unit, n in ORGAN_SCORES:
        field, value = f"{place}.{name}", scores.get(name)
        if name not in scores or (value is None) != (counts[n] == 0):
            raise InputError(
                f"{path}: field '{field}' is {value!r}, though {counts[n]} cases or organs define "
                "it; evaluate the run again"
            )
        found[name] = None if value is None else score(path, field, value, unit)
    return found


def _count(path: str, field: str, value: Any, most: int | None = None) -> int:
    """A number of cases, no more than there are; at least one where `most` is left out."""
    least = 1 if most is None else 0
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        words = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise InputError(
            f"{path}: field '{field}' is {value!r}, not a whole number {words}; "
            "evaluate the run again"
        )
    return value


def _mapping(path: str, field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: field '{field}' is missing; evaluate the run again")
    return value
