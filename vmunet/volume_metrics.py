"""Dice and HD95 of label volumes (Synapse), with medpy, under both conventions.

Where a class is in the truth and in the prediction the two conventions agree, except that HD95 is
in voxels under `paper` and in mm under `sound` if the spacing is known. Elsewhere, as
(Dice, HD95):

                            paper (the published code)   sound
    predicted but absent    (1, 0)                       (0, undefined)
    missed                  (0, 0)                       (0, undefined)
    absent in both          (0, 0)                       left out and counted

Undefined and left out are nan; a nan Dice means that the class was absent in both.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from vmunet.errors import InputError

Convention = Literal["paper", "sound"]
Floats = npt.NDArray[np.float64]


def dice_hd95(
    prediction: npt.NDArray,
    truth: npt.NDArray,
    convention: Convention,
    spacing: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Dice (0..1) and 95th percentile Hausdorff distance of one class in one volume.

    Args:
        prediction, truth: (depth, height, width), non-zero where the class is.
        convention: what the degenerate cases score; see the module.
        spacing: mm per voxel along (depth, height, width); None gives HD95 in voxels.

    Raises:
        InputError: the shapes differ, or the spacing is not one positive number per axis.
    """
    prediction, truth = _crop(prediction, truth, spacing)
    if convention not in ("paper", "sound"):
        raise InputError(f"convention is {convention!r}; expected 'paper' or 'sound'")
    predicted, present = bool(prediction.any()), bool(truth.any())
    if predicted and present:
        from medpy.metric import binary

        dice = binary.dc(prediction, truth)
        return float(dice), float(binary.hd95(prediction, truth, voxelspacing=spacing))
    if convention == "paper":
        return (1.0, 0.0) if predicted else (0.0, 0.0)
    return (0.0, np.nan) if predicted or present else (np.nan, np.nan)


def volume_scores(
    prediction: npt.NDArray,
    truth: npt.NDArray,
    classes: Sequence[int],
    convention: Convention,
    spacing: Sequence[float] | None = None,
) -> Floats:
    """Dice and HD95 of every class in one volume.

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


def mean_volume_scores(scores: npt.NDArray) -> dict[str, Floats | float]:
    """Means over the volumes, then over the classes, as the published code averages.

    Args:
        scores: (volumes, classes, 2) from `volume_scores`; nan is left out.

    Returns:
        class_dice, class_hd95: (classes,) means over volumes, nan where no volume defines one;
        class_dice_n, class_hd95_n: (classes,) how many volumes do; dice, hd95: means of the
        defined class means.
    """
    means, n = _defined_mean(scores)  # (classes, 2)
    overall, _ = _defined_mean(means)  # (2,)
    return {
        "class_dice": means[:, 0],
        "class_hd95": means[:, 1],
        "class_dice_n": n[:, 0],
        "class_hd95_n": n[:, 1],
        "dice": float(overall[0]),
        "hd95": float(overall[1]),
    }


def _defined_mean(values: npt.NDArray) -> tuple[Floats, Floats]:
    """Mean over the first axis without nan, and how many values it has."""
    defined = ~np.isnan(values)
    n = defined.sum(0).astype(np.float64)
    mean = np.full(n.shape, np.nan)
    np.divide(np.where(defined, values, 0.0).sum(0), n, out=mean, where=n > 0)
    return mean, n


def _crop(
    prediction: npt.NDArray, truth: npt.NDArray, spacing: Sequence[float] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Both as bool, cut to the box that holds them.

    Nothing lies outside the box, so neither the surfaces nor the distances between them change,
    and a distance transform over a whole CT volume per organ is spared.
    """
    if prediction.ndim != 3 or prediction.shape != truth.shape:
        raise InputError(
            f"volume scores: the prediction is {prediction.shape} and the truth {truth.shape}; "
            "expected (depth, height, width) for both"
        )
    if spacing is not None and (
        len(spacing) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in spacing)
    ):
        raise InputError(f"spacing is {spacing}; expected three positive lengths in mm")
    prediction, truth = prediction.astype(bool), truth.astype(bool)
    either = prediction | truth
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        held = np.flatnonzero(either.any(axis=others))
        box.append(slice(held[0], held[-1] + 1) if held.size else slice(0, 0))
    return prediction[tuple(box)], truth[tuple(box)]
