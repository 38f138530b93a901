"""Measure what may make an image hard to segment: a pale lesion, and hair over it.

The paper's Figure 5 blames light-coloured lesions and hair for its failures; here both are numbers.
The images are those that a model sees: square, min-max normalised. All are measured at one size,
so that a limit has the same meaning for models of every size.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIDE = 128  # px at which images are measured
BLACK = 40  # a pixel whose brightest channel is below this may belong to the black surroundings
GAP, RING = 0.02, 0.08  # the distance of the ring of skin from the lesion, and its width, in sides
DIRECTIONS = 12  # the number of directions in which dark lines are searched
THICK, LONG = 0.03, 0.09  # a hair's largest width and smallest length, in sides
DARKER = 14  # the smallest difference in levels of red between a hair and the skin beside it
INK = 10  # the smallest excess of blue over red, in levels, in a surgical marker's ink
ELONGATED = 4.0  # the smallest ratio of length to width for a piece that counts as hair


@dataclass(frozen=True)
class ImageFacts:
    """One image's lesion.

    Attributes:
        size: the lesion's share of the image, 0..1.
        contrast: distance in CIELAB between the mean colours of the lesion and of a ring of skin
            around it; None if there is no lesion, or no skin is left beside it.
        hair: share of the image (without its black surroundings) under thin dark lines, 0..1.
    """

    size: float
    contrast: float | None
    hair: float


def measure(image: Pixels, lesion: Mask) -> ImageFacts:
    """Measure an image, uint8 RGB (height, width, 3), and its true lesion, bool (height, width)."""
    size, image = float(lesion.mean()), at_side(image)
    lesion = cv2.resize(lesion.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0
    seen, hair = ~black_surroundings(image), hair_mask(image)
    return ImageFacts(
        size=size,
        contrast=contrast(image, lesion, seen & ~hair),
        hair=float(hair[seen].mean()) if seen.any() else 0.0,
    )


def at_side(image: Pixels) -> Pixels:
    """An image, uint8 RGB, at the size at which images are measured."""
    shrinks = image.shape[0] > SIDE
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=how), np.uint8)


def contrast(image: Pixels, lesion: Mask, valid: Mask) -> float | None:
    """Distance in CIELAB between the mean colours of the lesion and of the skin around it.

    Args:
        image: uint8 RGB (height, width, 3).
        lesion: bool (height, width).
        valid: bool (height, width), the pixels that count: no hair, no black surroundings.
    """
    side = min(lesion.shape)
    ring = _grown(lesion, (GAP + RING) * side) & ~_grown(lesion, GAP * side)
    inside, outside = lesion & valid, ring & valid
    if not inside.any() or not outside.any():
        return None
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return float(np.linalg.norm(lab[inside].mean(axis=0) - lab[outside].mean(axis=0)))


def black_surroundings(image: Pixels) -> Mask:
    """The dark corners or rim that the lens leaves: dark pixels connected to a corner."""
    dark = (image.max(axis=2) < BLACK).astype(np.uint8)
    _, pieces = cv2.connectedComponents(dark, connectivity=4)
    corners = {int(pieces[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    surroundings = np.isin(pieces, list(corners))
    return _grown(surroundings, 0.02 * min(dark.shape))  # with its soft edge


def hair_mask(image: Pixels) -> Mask:
    """Thin, long, dark lines, bool (height, width).

    A closing with a line fills dark places that are shorter than the line in its direction. Short
    lines across a hair fill it, and long lines along it do not; all lines fill a dot, and none
    fills the edge of a lesion. So a pixel belongs to a hair if it is darker than the highest
    closing with short lines, and if the lowest closing with long lines is darker than that too.
    (DullRazor, Lee et al. 1997, has the first rule alone, which takes dots too.) In the red
    channel, brown and red skin hardly differ, and hair does.
    """
    red = np.ascontiguousarray(image[..., 0])
    side = min(red.shape)
    filled = np.max(_closings(red, THICK * side), axis=0)
    # The hair is made a pixel wider, because it need not run in exactly one of the directions.
    left = np.min(_closings(np.asarray(cv2.erode(red, _CROSS), np.uint8), LONG * side), axis=0)
    dark = cv2.subtract(filled, np.maximum(red, left)) >= DARKER
    ink = image[..., 2].astype(np.int16) - red >= INK
    return _long_pieces(dark & ~ink & ~black_surroundings(image), LONG * side)


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def _closings(gray: Pixels, length: float) -> list[Pixels]:
    """Closings with lines of this length, px, one for each direction."""
    lines = [_line(length, direction) for direction in range(DIRECTIONS)]
    # Outside the image its last pixels are repeated, so that a dark rim is not taken for a line.
    rim = cv2.BORDER_REPLICATE
    closed = [cv2.morphologyEx(gray, cv2.MORPH_CLOSE, line, borderType=rim) for line in lines]
    return [np.asarray(one, np.uint8) for one in closed]


def _line(length: float, direction: int) -> Pixels:
    """A structuring element: a line through the middle of a square."""
    half = max(2, round(length / 2))
    angle = np.pi * direction / DIRECTIONS
    reach = np.rint([half * np.cos(angle), half * np.sin(angle)]).astype(int)
    element = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    start, end = (half - reach).tolist(), (half + reach).tolist()
    cv2.line(element, start, end, 1)
    return element


def _long_pieces(mask: Mask, least: float) -> Mask:
    """The connected pieces that are at least `least` px long, and long compared to their width."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    width, height, area = (
        stats[:, i].astype(float) for i in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA)
    )
    length = np.hypot(width, height)
    keep = (length >= least) & (length**2 >= ELONGATED * area)
    keep[0] = False  # the background
    return keep[pieces]


def _grown(mask: Mask, pixels: float) -> Mask:
    """The mask and all pixels within a distance of `pixels` from it."""
    if not mask.any():
        return mask.copy()
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return distance <= pixels
