"""How far the border of a predicted lesion is from the true one: NSD and HD95 of one image.

A border pixel is a pixel of the mask with a side in common with the background; beyond the image
all is background. The distances from each border pixel to the other mask's nearest one are pooled
over both directions, as for volumes (`vmunet.evaluation.surface_distance`). Distances are measured
between border pixels alone: a lesion has thousands of them, its image millions of pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# The NSD's tolerance, in diagonals of the image. Photographs of skin have no scale in mm, and sides
# of some hundred to some thousand px: a tolerance in px would be another one in each. 1% lies
# between a pixel of the training grid, below which no prediction has detail (0.4% of a side at
# 256 px), and the band of 2% that Boundary IoU takes (Cheng et al., arXiv:2103.16562).
TOLERANCE = 0.01
BOUNDARY = ("nsd", "hd95_px", "hd95_penalised_px")


@dataclass(frozen=True)
class BoundaryScores:
    """The border of one image's lesion.

    Attributes:
        nsd: the part of both borders within `TOLERANCE` of the other, 0..1; as for Dice 1 if both
            masks are empty, 0 if one of them is.
        hd95_px: the 95th percentile of the distances, px; nan if a mask is empty.
        hd95_penalised_px: the same, with 0 if both masks are empty and the image's diagonal, px,
            if one of them is.
    """

    nsd: float
    hd95_px: float
    hd95_penalised_px: float


def boundary_scores(prediction: Mask, truth: Mask) -> BoundaryScores:
    """Score a prediction; both masks bool (height, width) of the same shape."""
    diagonal = float(np.hypot(*truth.shape))
    borders = border(prediction), border(truth)
    empty = [len(pixels) == 0 for pixels in borders]
    if any(empty):
        agree = all(empty)
        return BoundaryScores(float(agree), np.nan, 0.0 if agree else diagonal)
    distances = border_distances(*borders)
    hd95 = float(np.percentile(distances, 95))
    return BoundaryScores(float((distances <= TOLERANCE * diagonal).mean()), hd95, hd95)


def border(mask: Mask) -> npt.NDArray[np.int64]:
    """The places (pixels, 2) of a mask's border pixels: row and column."""
    import cv2

    solid = mask.astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(solid, cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(solid > inner)


def border_distances(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> Floats:
    """From each pixel of one border to the nearest of the other, and back, px: (pixels of both,).

    Args:
        one, other: (pixels, 2), at least one pixel each.
    """
    from scipy.spatial import cKDTree

    there, back = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
    return np.concatenate([there, back])
