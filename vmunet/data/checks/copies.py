"""Find photographs of the same picture: saved again, shifted, recoloured, mirrored or turned.

The hash proposes pairs, because it is cheap to compare all of them. A correlation of fine detail,
after one photograph was aligned to the other, confirms a pair. The limits were set by looking at
the 2,150 photographs of ISIC 2017: among pairs at most 20 bits apart, every one with a correlation
above 0.75 shows one picture twice (18 pairs, up to 16 bits apart, many of them recoloured and
shifted by a few percent); below 0.66 they are different photographs, a few of them of the same
lesion. Saving again at half the size as JPEG changed no hash by more than 4 bits at quality 75,
and by 6 at quality 30.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vmunet.data.checks.hashes import SIDE, TURNS, UPRIGHT, Turn, close_pairs, hash_of, waves_of
from vmunet.threads import in_threads

REACH = 20  # the most bits between the hashes of two photographs that are compared closely
TURNED_REACH = 10  # the same for mirrored and turned ones: there are seven times as many chances
GRAY = 0.8  # pairs whose thumbnails correlate less are dropped without an alignment
SAME = 0.7  # the smallest correlation of detail of two photographs that show the same picture
DETAIL = 1.5  # standard deviation in pixels of the blur that is subtracted
DARK = 40  # the black surround of many dermatoscopes is darker; its edge would correlate
MARGIN = 3  # pixels along the edges that are not compared
CHUNK = 2048  # pairs whose thumbnails are in memory at once

Gray = NDArray[np.float32]


@dataclass(frozen=True)
class Copy:
    """Two photographs that show the same picture, by their places in the given list.

    Attributes:
        first, second: places, first < second.
        distance: bits between their hashes.
        gray: correlation of the thumbnails without alignment, -1..1.
        detail: correlation of fine detail after alignment, -1..1.
        turn: how the second must be turned to look like the first.
        identical: whether all pixels are the same.
    """

    first: int
    second: int
    distance: int
    gray: float
    detail: float
    turn: Turn
    identical: bool


def find_copies(
    thumbnails: NDArray[np.uint8], digests: list[str], apart: NDArray[np.int64] | None = None
) -> list[Copy]:
    """Every pair that shows the same picture, once, with the turn that correlates best.

    Args:
        thumbnails: uint8 (n, 64, 64), results of `hashes.thumbnail`.
        digests: n digests of the pixels.
        apart: n numbers; photographs with the same number (the same id in two datasets) are not
            compared with each other.

    Returns:
        Identical pairs first, then the others, those with the highest correlation first.
    """
    waves = waves_of(thumbnails)
    hashes = hash_of(waves)
    best: dict[tuple[int, int], Copy] = {}
    for turn in TURNS:
        reach = REACH if turn == UPRIGHT else TURNED_REACH
        i, j, bits = close_pairs(hashes, hash_of(turn.of_waves(waves)), reach)
        if apart is not None:
            kept = apart[i] != apart[j]
            i, j, bits = i[kept], j[kept], bits[kept]
        gray = _gray_correlation(thumbnails, turn.of(thumbnails), i, j)
        same = np.array([digests[a] == digests[b] for a, b in zip(i, j, strict=True)], bool)
        same &= turn == UPRIGHT
        candidates = np.flatnonzero((gray >= GRAY) | same)
        pairs = [
            Copy(int(i[k]), int(j[k]), int(bits[k]), float(gray[k]), 1.0, turn, bool(same[k]))
            for k in candidates
        ]
        for copy in in_threads(
            lambda pair: _confirmed(pair, thumbnails), pairs, f"comparing, {turn.name}"
        ):
            key = (copy.first, copy.second)
            if copy.detail >= SAME and (key not in best or copy.detail > best[key].detail):
                best[key] = copy
    return sorted(best.values(), key=lambda c: (not c.identical, -c.detail, c.first, c.second))


def _gray_correlation(
    one: NDArray[np.uint8], other: NDArray[np.uint8], i: NDArray, j: NDArray
) -> Gray:
    """Correlations (pairs,) of one[i] and other[j]; 0 if an image is flat."""

    def normalised(squares: NDArray[np.uint8]) -> Gray:
        flat = squares.reshape(len(squares), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-6))

    left, right = normalised(one), normalised(other)
    parts = [
        np.einsum("np,np->n", left[i[k : k + CHUNK]], right[j[k : k + CHUNK]])
        for k in range(0, len(i), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _confirmed(pair: Copy, thumbnails: NDArray[np.uint8]) -> Copy:
    """The pair with its correlation of detail."""
    if pair.identical:
        return pair
    first = thumbnails[pair.first].astype(np.float32)
    second = np.ascontiguousarray(pair.turn.of(thumbnails[pair.second]), dtype=np.float32)
    detail = detail_correlation(first, second)
    return replace(pair, detail=detail)


def detail_correlation(first: Gray, second: Gray) -> float:
    """Correlation of the fine detail of two thumbnails (64, 64), 0..255.

    It is the better one of two: without alignment, and after an affine alignment (Evangelidis and
    Psarakis's ECC), which sometimes fails on images that hardly differ.
    """
    import cv2

    inside = np.zeros((SIDE, SIDE), bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    unaligned = _correlation(first, second, inside)
    matrix: NDArray = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 1e-3)
    try:
        _, matrix = cv2.findTransformECC(
            first, second, matrix, cv2.MOTION_AFFINE, stop, np.ones((SIDE, SIDE), np.uint8), 3
        )
    except cv2.error:  # no overlap, or no detail to align
        return unaligned
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved: NDArray = cv2.warpAffine(second, matrix, (SIDE, SIDE), flags=how)
    covered = cv2.warpAffine(np.ones_like(second), matrix, (SIDE, SIDE), flags=how) > 0.99
    return max(unaligned, _correlation(first, moved, inside & covered))


def _correlation(first: Gray, second: Gray, where: NDArray[np.bool_]) -> float:
    """Correlation of the detail that a blur removes, over pixels that are lit in both images.

    It is 0 if these are less than half of a thumbnail.
    """
    import cv2

    lit = where & _lit(first) & _lit(second)
    if 2 * lit.sum() >= where.sum():
        where = lit  # otherwise the picture itself is so dark
    if 2 * where.sum() < SIDE * SIDE:
        return 0.0
    a, b = ((g - cv2.GaussianBlur(g, (0, 0), DETAIL))[where] for g in (first, second))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _lit(gray: Gray) -> NDArray[np.bool_]:
    import cv2

    return cv2.erode((gray >= DARK).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
