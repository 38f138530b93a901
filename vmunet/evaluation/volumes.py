"""Score a trained model, or any labels, on the test volumes of a view, under both conventions.

Each volume is predicted at the training size, slice by slice or in windows, and its labels are
brought back to the volume's own pixels, where they are compared with the truth
(`vmunet.evaluation.volume_metrics` describes the two conventions).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vmunet.data.slice_dataset import open_case
from vmunet.evaluation.samples import MEAN, CaseSample
from vmunet.evaluation.statistics import intervals
from vmunet.evaluation.volume_metrics import CaseScores, Mean, MeanScores, average_cases, score_case
from vmunet.inference.volumes import segment_volume

WINDOWED = (0.0, 1.0)  # the arrays hold windowed values: this window changes nothing


@dataclass(frozen=True)
class ScoredVolumes:
    """What `score_volumes` and `score_cases` measured.

    Attributes:
        paper, sound: the blocks of metrics.json with these names.
        rows: a row for each case and organ.
        predictions: uint8 (depth, height, width) labels by case.
    """

    paper: dict[str, Any]
    sound: dict[str, Any]
    rows: list[dict[str, Any]]
    predictions: dict[str, NDArray[np.uint8]]


def score_volumes(
    model: nn.Module,
    arrays: Path,
    manifest: Mapping[str, Any],
    size: int,
    resize: Literal["cubic", "area"],
    batch_size: int,
    patch: Sequence[int] | None = None,
) -> ScoredVolumes:
    """Predict and score the test cases of data/arrays/<view>.

    Args:
        model: gives logits (batch, classes + 1, size, size) for (batch, 1, size, size) in 0..1; if
            it is one of three dimensions, each with a depth before the height.
        arrays: the folder.
        manifest: its manifest.json.
        size: side of the square that the model sees, px.
        resize: how slices are resized to that size.
        batch_size: slices at a time.
        patch: of a model of three dimensions, see `vmunet.inference.volumes.segment_volume`.

    Raises:
        InputError: arrays are missing or broken, or the model's output is unusable.
    """

    def predict(case: str) -> NDArray[np.uint8]:
        image, _ = open_case(arrays, case)
        return segment_volume([model], image, size, resize, WINDOWED, batch_size, patch)

    return score_cases(predict, arrays, manifest)


def score_cases(
    predict: Callable[[str], NDArray[np.uint8]], arrays: Path, manifest: Mapping[str, Any]
) -> ScoredVolumes:
    """Score the labels (depth, height, width) that `predict` gives for each test case.

    Raises:
        InputError: the arrays of a case are missing or broken; and those of `predict`.
    """
    classes = list(manifest["classes"])
    patients = manifest.get("patients")  # of your own volumes, if a table names them
    predictions: dict[str, NDArray[np.uint8]] = {}
    scores: dict[str, CaseScores] = {}
    rows: list[dict[str, Any]] = []
    penalised: list[NDArray] = []
    for case in manifest["test"]:
        _, truth = open_case(arrays, case)
        labels = predict(case)
        spacing = manifest["cases"][case]["spacing"]
        scores[case] = score_case(labels, np.asarray(truth), len(classes) + 1, spacing)
        predictions[case] = labels
        patient = {"patient": patients[case]} if patients else {}
        penalised.append(penalised_hd95(scores[case], truth.shape, spacing))
        of_case = _rows(case, classes, scores[case], penalised[-1], truth, labels)
        rows += [row | patient for row in of_case]
    mean = average_cases(list(scores.values()))
    spaced = all(manifest["cases"][case]["spacing"] for case in manifest["test"])
    sound = _sound(mean, classes, spaced)
    _add_penalised(sound, np.stack(penalised), classes)
    dice = np.stack([scores[case].dice for case in manifest["test"]])
    groups = [patients[case] for case in manifest["test"]] if patients else []
    _add_intervals(sound, CaseSample(dice[None], tuple(classes), groups))
    return ScoredVolumes(_paper(mean, classes), sound, rows, predictions)


def penalised_hd95(
    scores: CaseScores, shape: Sequence[int], spacing: Sequence[float] | None
) -> NDArray[np.float64]:
    """HD95 in mm (organs,), with the volume's diagonal for an organ that is missed or made up.

    `hd95` leaves such organs out, so that a model that misses a hard organ gets a better mean.
    The diagonal is longer than any distance in the volume. An organ that is absent in truth and
    prediction stays nan, and so do all if the spacing is not known.

    Args:
        scores: of one case.
        shape: (depth, height, width) in voxels.
        spacing: mm along them, or None.
    """
    if not spacing:
        return np.full_like(scores.hd95, np.nan)
    diagonal = float(np.linalg.norm(np.multiply(shape, spacing)))
    wrong = np.isnan(scores.hd95) & ~np.isnan(scores.dice)
    return np.where(wrong, diagonal, scores.hd95)


def _add_penalised(sound: dict[str, Any], values: NDArray, classes: Sequence[str]) -> None:
    """Give the sound block the means of `penalised_hd95` (cases, organs)."""
    means = CaseSample(values[None], tuple(classes), highest=math.inf).scores()
    sound["hd95_penalised_mm"] = _defined(means[MEAN])
    for name in classes:
        sound["organs"][name]["hd95_penalised_mm"] = _defined(means[name])


def _rows(
    case: str,
    classes: Sequence[str],
    scores: CaseScores,
    penalised: NDArray,
    truth: NDArray,
    labels: NDArray,
) -> list[dict[str, Any]]:
    return [
        {
            "case": case,
            "organ": organ,
            "truth_voxels": int(np.count_nonzero(truth == i + 1)),
            "predicted_voxels": int(np.count_nonzero(labels == i + 1)),
            "paper_dice": float(scores.paper_dice[i]),
            "paper_hd95_voxels": float(scores.paper_hd95[i]),
            "dice": _defined(scores.dice[i]),
            "hd95_mm": _defined(scores.hd95[i]),
            "hd95_penalised_mm": _defined(penalised[i]),
            "nsd": _defined(scores.nsd[i]),
        }
        for i, organ in enumerate(classes)
    ]


def _paper(mean: MeanScores, classes: Sequence[str]) -> dict[str, Any]:
    """DSC 0..1 and HD95 in voxels, overall and by organ (each organ's name holds its DSC)."""
    return {
        "dsc": mean.paper_dice.overall,
        "hd95": mean.paper_hd95.overall,
        **{name: float(mean.paper_dice.organs[i]) for i, name in enumerate(classes)},
        "hd95_organs": {name: float(mean.paper_hd95.organs[i]) for i, name in enumerate(classes)},
        "cases": mean.cases,
    }


def _sound(mean: MeanScores, classes: Sequence[str], spaced: bool) -> dict[str, Any]:
    """Dice and NSD 0..1, HD95 in mm, each with the number of cases that define it."""

    def scores(of: Mean, i: int) -> tuple[float | None, int]:
        return _defined(of.organs[i]), int(of.n[i])

    organs = {}
    for i, name in enumerate(classes):
        (dice, dice_n), (hd95, hd95_n), (nsd, nsd_n) = (
            scores(of, i) for of in (mean.dice, mean.hd95, mean.nsd)
        )
        organs[name] = {
            "dice": dice,
            "dice_n": dice_n,
            "hd95_mm": hd95,
            "hd95_n": hd95_n,
            "nsd": nsd,
            "nsd_n": nsd_n,
            "absent": int(mean.absent[i]),
        }
    return {
        "dice": _defined(mean.dice.overall),
        "hd95_mm": _defined(mean.hd95.overall),
        "nsd": _defined(mean.nsd.overall),
        "spacing_known": spaced,
        "cases": mean.cases,
        "organs": organs,
    }


def _add_intervals(sound: dict[str, Any], dice: CaseSample) -> None:
    """Give the sound Dice its 95% bootstrap intervals over the test cases, or their patients."""
    of_sample = intervals(dice)

    def pair(name: str) -> list[float | None]:
        low, high = of_sample[name]
        return [_defined(low), _defined(high)]

    sound["intervals"] = {"dice": pair(MEAN)}
    for name in dice.organs:
        sound["organs"][name]["intervals"] = {"dice": pair(name)}


def _defined(value: float) -> float | None:
    """None for nan, which JSON does not have."""
    return None if math.isnan(value) else float(value)
