"""The two sets of scores in a metrics file, `paper` and `sound`, of images and of volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

SOUND_SIZES = ("training_size", "native_size")
# Scores at one of the sizes alone, in their own unit; each is None in a file of an earlier version.
FRACTIONS_OF_SIZE = {"training_size": ("ece",), "native_size": ("nsd",)}
DISTANCES = ("hd95_px", "hd95_penalised_px")  # at the native size
PENALISED = "hd95_penalised_mm"  # of organs; None in a file of an earlier version
SOUND_SCORES = ("miou", "mean_iou", "mean_dice", "thresholded_jaccard")
# The sound scores of an organ, each with the field that counts the cases that define it.
ORGAN_SCORES = {"dice": "dice_n", "hd95_mm": "hd95_n", "nsd": "nsd_n"}


@dataclass(frozen=True)
class Estimate:
    """A score with its 95% bootstrap interval over the test images: fractions 0..1 or None."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OrganScores:
    """Means over the test cases for one organ, or over all organs, under both conventions.

    Attributes:
        paper_dice, paper_hd95: fraction 0..1 and voxels.
        dice, nsd: fractions 0..1; None if no case defines them.
        hd95_mm: mm; None if no case defines it.
        hd95_penalised_mm: with the volume's diagonal for an organ that is missed or only predicted;
            None without spacing, and in a file of an earlier version.
        dice_n, hd95_n, nsd_n: the number of cases that define each score; for the mean, of organs.
        absent: the number of cases without the organ in truth and prediction; for the mean, their
            sum.
    """

    paper_dice: float
    paper_hd95: float
    dice: float | None
    dice_n: int
    hd95_mm: float | None
    hd95_n: int
    hd95_penalised_mm: float | None
    nsd: float | None
    nsd_n: int
    absent: int


def image_scores(sound: Mapping[str, Any]) -> dict[str, dict[str, Estimate]]:
    """The `sound` block of images, by size (`SOUND_SIZES`) and score (`SOUND_SCORES`, and those of
    one size)."""
    scores = {
        size: {
            name: Estimate(sound[size][name], *sound[size]["intervals"][name])
            for name in SOUND_SCORES
        }
        for size in SOUND_SIZES
    }
    ece = sound.get("calibration", {}).get("ece")
    scores["training_size"]["ece"] = Estimate(ece, None, None)
    boundary = sound["native_size"].get("boundary")
    for name in (*FRACTIONS_OF_SIZE["native_size"], *DISTANCES):
        one = (boundary[name], *boundary["intervals"][name]) if boundary else (None, None, None)
        scores["native_size"][name] = Estimate(*one)
    return scores


def organ_scores(
    paper: Mapping[str, Any], sound: Mapping[str, Any], classes: Sequence[str]
) -> tuple[dict[str, OrganScores], OrganScores]:
    """Both blocks of volumes by organ, and their means over the organs."""
    fields = [field for pair in ORGAN_SCORES.items() for field in pair]
    organs = {
        name: OrganScores(
            paper_dice=paper[name],
            paper_hd95=paper["hd95_organs"][name],
            absent=sound["organs"][name]["absent"],
            hd95_penalised_mm=sound["organs"][name].get(PENALISED),
            **{field: sound["organs"][name][field] for field in fields},
        )
        for name in classes
    }
    defining = {
        n: sum(getattr(organ, name) is not None for organ in organs.values())
        for name, n in ORGAN_SCORES.items()
    }
    mean = OrganScores(
        paper_dice=paper["dsc"],
        paper_hd95=paper["hd95"],
        hd95_penalised_mm=sound.get(PENALISED),
        absent=sum(organ.absent for organ in organs.values()),
        **{name: sound[name] for name in ORGAN_SCORES},
        **defining,
    )
    return organs, mean


def mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation over the seeds.

    Both are None if any value is None; a single value has no standard deviation.
    """
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None, None
    return fmean(defined), stdev(defined) if len(defined) > 1 else None
