"""A perceptual hash: 64 bits that stay nearly the same when a photograph is saved again.

The bits are the signs of a photograph's lowest 8x8 cosine coefficients (a DCT hash, after
Zauner's pHash): encoding as JPEG and resizing change fine detail, but not these. A mirrored or
turned photograph has the same coefficients with some signs changed and the axes swapped, so that
all eight orientations are compared without reading the pixels again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 64  # the side of thumbnails in pixels
WAVES = 8  # cosine coefficients along each axis
BLOCK = 512  # rows of the table of all pairs that are in memory at the same time


@dataclass(frozen=True)
class Turn:
    """One of the eight orientations of a square: axes swapped first, then flipped."""

    name: str
    swap: bool
    flip_rows: bool
    flip_columns: bool

    def of(self, squares: NDArray) -> NDArray:
        """Squares (..., n, n) in this orientation."""
        if self.swap:
            squares = squares.swapaxes(-1, -2)
        if self.flip_rows:
            squares = squares[..., ::-1, :]
        return squares[..., ::-1] if self.flip_columns else squares

    def of_waves(self, waves: NDArray) -> NDArray:
        """Cosine coefficients (..., 8, 8) of squares in this orientation."""
        if self.swap:
            waves = waves.swapaxes(-1, -2)
        alternating = (-1.0) ** np.arange(WAVES)  # an odd wave is its own mirror image, negated
        if self.flip_rows:
            waves = waves * alternating[:, None]
        return waves * alternating if self.flip_columns else waves


UPRIGHT = Turn("upright", False, False, False)
TURNS = (
    UPRIGHT,
    Turn("mirrored left-right", False, False, True),
    Turn("mirrored top-bottom", False, True, False),
    Turn("turned half round", False, True, True),
    Turn("turned right", True, False, True),
    Turn("turned left", True, True, False),
    Turn("mirrored diagonally", True, False, False),
    Turn("mirrored anti-diagonally", True, True, True),
)


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph, uint8 RGB (height, width, 3), in gray as a square (64, 64)."""
    import cv2

    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # The area method averages along an axis that shrinks; along one that grows it repeats pixels.
    return cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def waves_of(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The lowest cosine coefficients (n, 8, 8) of thumbnails (n, 64, 64)."""
    centres = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    cosines = np.cos(np.outer(np.arange(WAVES), centres))
    waves = cosines @ thumbnails.astype(np.float64) @ cosines.T
    # A flat image has no waves; rounding would give it random signs.
    waves[np.abs(waves) < 1e-6] = 0
    return waves


def hash_of(waves: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Hashes (n,) of coefficients (n, 8, 8): the bit of a positive one is set.

    The mean brightness is always positive and does not count.
    """
    bits = waves.reshape(len(waves), -1) > 0
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The number of different bits, 0..63."""
    return np.bitwise_count(one ^ other)


def close_pairs(
    one: NDArray[np.uint64], other: NDArray[np.uint64], reach: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """All i < j with at most `reach` bits between one[i] and other[j]: (i, j, distances).

    Args:
        one: hashes (n,).
        other: hashes (n,) of the same images, in the same or another orientation.
    """
    firsts, seconds, distances = [], [], []
    for start in range(0, len(one), BLOCK):
        between = distance(one[start : start + BLOCK, None], other[None, :])
        i, j = np.nonzero(between <= reach)
        later = j > i + start
        firsts.append(i[later] + start)
        seconds.append(j[later])
        distances.append(between[i[later], j[later]])
    if not firsts:
        none = np.empty(0, np.intp)
        return none, none, np.empty(0, np.uint8)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(distances)
