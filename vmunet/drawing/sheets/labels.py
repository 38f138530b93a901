"""Labels of several classes drawn over an image, and the legend of their colours."""

from collections.abc import Sequence

import cv2
import numpy as np

from vmunet.classes import Labels
from vmunet.drawing.sheets.images import INK, PALETTE, PAPER, Colour, Pixels, write_text

OPACITY = 0.15
LETTER = 8  # width of a letter of the legend, px at scale 1
LINE = 18  # height of a line of the legend, px at scale 1
SWATCH = 22


def colour_of(label: int) -> Colour:
    """The colour of label 1, 2, ..."""
    return PALETTE[(label - 1) % len(PALETTE)]


def paint(image: Pixels, labels: Labels, width: int, opacity: float = OPACITY) -> Pixels:
    """Draw each class's outline and a light fill over the image.

    A class's outline lies inside its own region: the outlines of two neighbours touch, and neither
    covers the other. Towards the background there is a black rim, which stays visible on light
    pixels.

    Args:
        image: uint8 (height, width, 3), RGB.
        labels: uint8 (height, width), 0 the background.
        width: of the outlines, px.
        opacity: of the fill, 0..1.

    Returns:
        uint8 (height, width, 3), RGB; the image itself if there is only background.
    """
    drawn = image.copy()
    rim = _square(max(1, width // 2))
    outside = labels == 0
    drawn[(cv2.dilate((~outside).astype(np.uint8), rim) > 0) & outside] = 0
    for label in np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1:
        region = labels == label
        inner = cv2.erode(
            region.astype(np.uint8),
            _square(width),
            borderType=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        colour = np.array(colour_of(int(label)), dtype=np.float32)
        drawn[region] = np.rint(drawn[region] + opacity * (colour - drawn[region]))
        drawn[region & (inner == 0)] = colour
    return drawn


def overlay(image: Pixels, labels: Labels, classes: Sequence[str]) -> Pixels:
    """`paint` with a legend below the image: each class and its share of the pixels.

    Returns:
        uint8 (height + legend's, width, 3), RGB. The image's own pixels keep their place; a strip
        is added on the right if the image is narrower than a name.
    """
    longest = max(labels.shape)
    painted = paint(image, labels, width=max(1, round(longest / 400)))
    pixels = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
    entries = [f"{name} {n / labels.size:.1%}" for name, n in zip(classes, pixels, strict=True)]
    key = legend(entries, image.shape[1], scale=max(1, round(longest / 800)))
    blank = np.full((len(image), key.shape[1] - image.shape[1], 3), PAPER, dtype=np.uint8)
    return np.concatenate([np.concatenate([painted, blank], axis=1), key])


def legend(entries: Sequence[str], width: int, scale: int = 1) -> Pixels:
    """The legend: the colours of labels 1, 2, ... with a text for each, in as many lines as needed.

    Args:
        entries: ASCII; anything else is shown as a question mark.
        width: px to fill; the legend is wider if one entry needs it.
        scale: the factor for all sizes; with 1 letters are about 10 px high.

    Returns:
        uint8 (height, width or more, 3), RGB.
    """
    places, x, y = [], 0, 0
    for entry in entries:
        entry_width = SWATCH + LETTER * (len(entry) + 2)
        if x and (x + entry_width) * scale > width:
            x, y = 0, y + LINE
        places.append((x, y))
        x += entry_width
    widest = max(SWATCH + LETTER * (len(entry) + 1) for entry in entries) * scale
    strip = np.full(((y + LINE) * scale, max(width, widest), 3), PAPER, dtype=np.uint8)
    for label, (entry, (x, y)) in enumerate(zip(entries, places, strict=True), start=1):
        left, top = (x + 4) * scale, (y + 4) * scale
        corner = (left + 12 * scale, top + 10 * scale)
        cv2.rectangle(strip, (left, top), corner, colour_of(label), cv2.FILLED)
        cv2.rectangle(strip, (left, top), corner, INK, scale)
        start = ((x + SWATCH) * scale, (y + 14) * scale)
        write_text(strip, entry, start, scale=0.42 * scale, thickness=scale)
    return strip


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
