"""Compare our Dice and HD95 of volumes with medpy's own, on request.

medpy is GPL-3, so neither the library nor the pipeline brings it: `pip install medpy`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.errors import InputError


def compare_with_medpy(
    rows: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    predictions: Mapping[str, NDArray[np.uint8]],
    truths: Mapping[str, NDArray[np.uint8]],
    spacings: Mapping[str, Sequence[float] | None],
) -> tuple[int, float]:
    """The organs that medpy can score, and the largest difference between its scores and ours.

    medpy needs an organ that is in the truth and in the prediction.

    Args:
        rows: of `vmunet.evaluation.volumes.ScoredVolumes`.
        classes: the organs, in the order of their labels 1, 2, ...
        predictions, truths: labels (depth, height, width) by case.
        spacings: mm along (depth, height, width) by case, or None if they are not known.

    Returns:
        the number of organs, summed over the cases; the largest absolute difference of any Dice
        (0..1), HD95 in voxels or HD95 in mm.

    Raises:
        InputError: medpy is not installed.
    """
    try:
        from medpy.metric import binary
    except ImportError:
        raise InputError("to compare with medpy, install it (GPL-3): pip install medpy") from None
    count, largest = 0, 0.0
    for row in rows:
        case, label = row["case"], classes.index(row["organ"]) + 1
        predicted, true = predictions[case] == label, truths[case] == label
        if not (predicted.any() and true.any()):
            continue
        count += 1
        pairs = [
            (row["paper_dice"], binary.dc(predicted, true)),
            (row["paper_hd95_voxels"], binary.hd95(predicted, true)),
        ]
        if spacings[case]:
            pairs.append((row["hd95_mm"], binary.hd95(predicted, true, spacings[case])))
        largest = max(largest, *(abs(ours - theirs) for ours, theirs in pairs))
    return count, largest
