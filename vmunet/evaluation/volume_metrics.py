"""Dice, HD95 and normalised surface distance of label volumes (Synapse), in two conventions.

`score_case` scores all organs of one case, `average_cases` averages the cases. If an organ is in
the truth and in the prediction, the two conventions agree, except that HD95 is in voxels under
`paper` and in mm under `sound`. Otherwise they give, as (Dice, HD95):

                            paper (the published code)   sound
    predicted but absent    (1, 0)                       (0, undefined)
    missed                  (0, 0)                       (0, undefined)
    absent in both          (0, 0)                       left out and counted

Undefined scores, and those left out, are nan; a nan Dice means that the organ was absent in both.

The normalised surface distance (NSD) is the part of both surfaces that lies within a tolerance of
the other: the surface Dice of Nikolov et al. (arXiv:1809.04430), with surfaces measured by
counting their voxels, as MONAI's `compute_surface_dice` does by default.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vmunet.errors import InputError
from vmunet.evaluation.surface_distance import Floats, Mask, MaskPair, pooled

Convention = Literal["paper", "sound"]

# mm; FLARE 2022's for aorta and gallbladder, its strictest for abdominal organs
TOLERANCE = 2.0


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case, each (organs,) for the labels 1..classes-1; nan if undefined.

    paper_dice, dice: 0..1, as the two conventions of the module define it.
    paper_hd95: voxels.
    hd95: mm; nan for all organs if the spacing is not known.
    nsd: 0..1, 0 for an organ that is missed or predicted but absent, nan if it is absent in both
        or the spacing is not known. The published code has no such score.
    """

    paper_dice: Floats
    paper_hd95: Floats
    dice: Floats
    hd95: Floats
    nsd: Floats


@dataclass(frozen=True)
class Mean:
    """A score's means over the cases that define it.

    organs: (organs,), nan if no case defines it.
    n: (organs,), the number of cases that define it.
    overall: the mean of the organs' means, without nan.
    """

    organs: Floats
    n: npt.NDArray[np.int64]
    overall: float


@dataclass(frozen=True)
class MeanScores:
    """Each score of `CaseScores`, averaged over cases and then over organs.

    cases: the number of cases.
    absent: (organs,), the number of cases whose truth and prediction both lack the organ.
    """

    cases: int
    absent: npt.NDArray[np.int64]
    paper_dice: Mean
    paper_hd95: Mean
    dice: Mean
    hd95: Mean
    nsd: Mean


def score_case(
    prediction: npt.NDArray,
    truth: npt.NDArray,
    classes: int,
    spacing: Sequence[float] | None = None,
    tolerance: float | Sequence[float] = TOLERANCE,
    workers: int | None = None,
) -> CaseScores:
    """Score every organ of one case under both conventions.

    The work is done in threads: scipy's distance transform releases Python's lock.

    Args:
        prediction, truth: (depth, height, width) labels 0..classes-1, 0 is the background; whole
            numbers of any type.
        classes: the number of labels, background included (9 for Synapse).
        spacing: mm per voxel along (depth, height, width), or None if it is not known.
        tolerance: of the NSD in mm, one for all organs or one for each.
        workers: the number of threads; None takes one for each processor core.

    Raises:
        InputError: shapes that differ or are not three-dimensional, labels that are not whole
            numbers in 0..classes-1, a spacing or tolerance that is not a positive length.
    """
    if classes < 2 or (workers is not None and workers < 1):
        raise InputError(
            f"{classes} classes and {workers} workers; expected at least 2 classes, background "
            "included, and 1 worker"
        )
    _check_shapes(prediction, truth)
    mm = None if spacing is None else _lengths("spacing", spacing, 3)
    each = [tolerance] * (classes - 1) if np.ndim(tolerance) == 0 else tolerance
    tolerances = _lengths("tolerance", each, classes - 1)
    predicted = _labels("prediction", prediction, classes)
    true = _labels("truth", truth, classes)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        pairs = list(pool.map(lambda c: MaskPair(predicted == c, true == c), range(1, classes)))
        # All tasks are queued at once. One direction is one task: the liver is half of the work.
        in_voxels = [pair.distances(None, pool.map) for pair in pairs]
        in_mm = None if mm is None else [pair.distances(mm, pool.map) for pair in pairs]

    rows = []
    for i, pair in enumerate(pairs):
        voxels, lengths = pooled(in_voxels[i]), None if in_mm is None else pooled(in_mm[i])
        paper, sound = _dice_hd95(pair, voxels, "paper"), _dice_hd95(pair, lengths, "sound")
        rows.append((*paper, *sound, _nsd(pair, lengths, tolerances[i])))
    return CaseScores(*np.array(rows, dtype=np.float64).T)


def average_cases(cases: Sequence[CaseScores]) -> MeanScores:
    """Means over the cases, then over the organs, as the published code averages.

    Raises:
        InputError: no cases, or cases with different numbers of organs.
    """
    counts = {len(case.dice) for case in cases}
    if len(counts) != 1:
        raise InputError(
            f"average_cases: {len(cases)} cases with {sorted(counts)} organs; expected at least "
            "one case, all with the same organs"
        )
    dice = _mean([case.dice for case in cases])
    return MeanScores(
        cases=len(cases),
        absent=len(cases) - dice.n,
        paper_dice=_mean([case.paper_dice for case in cases]),
        paper_hd95=_mean([case.paper_hd95 for case in cases]),
        dice=dice,
        hd95=_mean([case.hd95 for case in cases]),
        nsd=_mean([case.nsd for case in cases]),
    )


def dice_hd95(
    prediction: npt.NDArray,
    truth: npt.NDArray,
    convention: Convention,
    spacing: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Dice (0..1) and HD95 of one organ in one volume.

    Args:
        prediction, truth: (depth, height, width), non-zero in the organ.
        convention: the scores if one of the two is empty; see the module.
        spacing: mm per voxel along (depth, height, width); None gives HD95 in voxels.

    Raises:
        InputError: shapes that differ or are not three-dimensional, nan, or a spacing that is
            not one positive number per axis.
    """
    if convention not in ("paper", "sound"):
        raise InputError(f"convention is {convention!r}; expected 'paper' or 'sound'")
    mm = None if spacing is None else _lengths("spacing", spacing, 3)
    pair = MaskPair(*_masks(prediction, truth))
    return _dice_hd95(pair, pooled(pair.distances(mm)), convention)


def volume_scores(
    prediction: npt.NDArray,
    truth: npt.NDArray,
    classes: Sequence[int],
    convention: Convention,
    spacing: Sequence[float] | None = None,
) -> Floats:
    """Dice and HD95 of chosen labels in one volume, under one convention.

    Args:
        prediction, truth: (depth, height, width) integer labels.
        classes: the labels to score, background left out by the caller.
        convention, spacing: as in `dice_hd95`.

    Returns:
        (classes, 2): Dice and HD95.
    """
    return np.array(
        [dice_hd95(prediction == c, truth == c, convention, spacing) for c in classes],
        dtype=np.float64,
    ).reshape(len(classes), 2)


def mean_volume_scores(scores: npt.NDArray) -> dict[str, npt.NDArray | float]:
    """Means over the volumes, then over the classes.

    Args:
        scores: (volumes, classes, 2) from `volume_scores`; nan is left out.

    Returns:
        class_dice, class_hd95: (classes,) means over volumes, nan if no volume defines one;
        class_dice_n, class_hd95_n: (classes,) the number of volumes that define one;
        dice, hd95: means of the defined class means.
    """
    dice, distance = _mean(scores[..., 0]), _mean(scores[..., 1])
    return {
        "class_dice": dice.organs,
        "class_hd95": distance.organs,
        "class_dice_n": dice.n,
        "class_hd95_n": distance.n,
        "dice": dice.overall,
        "hd95": distance.overall,
    }


def _dice_hd95(
    pair: MaskPair, distances: Floats | None, convention: Convention
) -> tuple[float, float]:
    """`distances` is None if their unit is not known."""
    if pair.predicted and pair.present:
        return pair.dice(), np.nan if distances is None else float(np.percentile(distances, 95))
    if convention == "paper":
        return (1.0, 0.0) if pair.predicted else (0.0, 0.0)
    return (0.0, np.nan) if pair.predicted or pair.present else (np.nan, np.nan)


def _nsd(pair: MaskPair, distances: Floats | None, tolerance: float) -> float:
    """Distances and tolerance are in mm; if one of the two surfaces is empty, the NSD is 0."""
    if distances is None or not (pair.predicted or pair.present):
        return np.nan
    return float((distances <= tolerance).mean()) if distances.size else 0.0


def _mean(values: Sequence[npt.NDArray] | npt.NDArray) -> Mean:
    """The means of (cases, organs)."""
    organs, n = _defined_mean(np.asarray(values, dtype=np.float64))
    return Mean(organs, n, float(_defined_mean(organs)[0]))


def _defined_mean(values: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The mean over the first axis without nan, and its number of values."""
    defined = ~np.isnan(values)
    n = defined.sum(0)
    mean = np.full(n.shape, np.nan)
    np.divide(np.where(defined, values, 0.0).sum(0), n, out=mean, where=n > 0)
    return mean, n


def _check_shapes(prediction: npt.NDArray, truth: npt.NDArray) -> None:
    if prediction.ndim != 3 or prediction.shape != truth.shape:
        raise InputError(
            f"volume scores: the prediction is {prediction.shape} and the truth {truth.shape}; "
            "expected (depth, height, width) for both"
        )


def _masks(prediction: npt.NDArray, truth: npt.NDArray) -> tuple[Mask, Mask]:
    _check_shapes(prediction, truth)
    for name, volume in (("prediction", prediction), ("truth", truth)):
        if volume.dtype.kind == "f" and np.isnan(volume).any():
            raise InputError(f"volume scores: the {name} holds nan; expected non-zero or zero")
    return prediction.astype(bool, copy=False), truth.astype(bool, copy=False)


def _labels(name: str, volume: npt.NDArray, classes: int) -> npt.NDArray:
    """The volume in the smallest integer type: (depth, height, width)."""
    whole = volume.dtype.kind in "biu" or (
        volume.dtype.kind == "f" and (volume == np.floor(volume)).all()  # false for nan
    )
    if not whole:
        raise InputError(f"{name}: some labels are nan or not whole; expected 0..{classes - 1}")
    if volume.size and not (volume.min() >= 0 and volume.max() < classes):
        raise InputError(
            f"{name}: labels {volume.min()}..{volume.max()}; expected 0..{classes - 1}"
        )
    return volume.astype(np.min_scalar_type(classes), copy=False)


def _lengths(name: str, values: object, count: int) -> Floats:
    """Positive lengths in mm, (count,)."""
    try:
        lengths = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        lengths = np.empty(0)
    if lengths.shape != (count,) or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(f"{name} is {values}; expected positive lengths in mm, {count} of them")
    return lengths
