"""The images with the lowest Dice, and their measurements (the paper's Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.pictures import shortened, shrunk
from vmunet.drawing.figures.style import (
    DOUBLE,
    VERMILION,
    Page,
    agreement,
    agreement_legend,
    outlines,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vmunet.measure.image_facts import ImageFacts

BLOCKS = 2  # images side by side
TILE, GAP = 2.05, 0.1  # cm
LEFT = 0.48  # for the name, cm
ROW = TILE + 0.2
HEADING, LEGEND = 0.5, 0.6


@dataclass(frozen=True)
class Failure:
    """One image.

    Attributes:
        id: the image's name.
        image: uint8 RGB (size, size, 3).
        truth, prediction: bool (size, size).
        dice: 0..1.
        facts: the measurements of the image.
        pale, hairy: whether contrast and hair are beyond the declared limits.
    """

    id: str
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    dice: float
    facts: "ImageFacts"
    pale: bool
    hairy: bool


def draw(failures: Sequence[Failure], warning: str) -> "Figure":
    """Draw the figure: image, dark lines, agreement, and words, two images in a row."""
    rows = -(-len(failures) // BLOCKS)
    height = HEADING + rows * ROW + LEGEND
    page = Page(DOUBLE, height, warning)
    for block in range(min(BLOCKS, len(failures))):
        for column, words in enumerate(("image", "dark lines", "agreement")):
            x = block * DOUBLE / BLOCKS + LEFT + column * (TILE + GAP) + TILE / 2
            page.text(x, HEADING - 0.13, words, ha="center", va="baseline")
    for place, failure in enumerate(failures):
        block, row = divmod(place, rows)
        _draw_one(page, block * DOUBLE / BLOCKS, HEADING + row * ROW, failure)
    agreement_legend(page, height - LEGEND / 2)
    return page.figure


def _draw_one(page: Page, x: float, y: float, failure: Failure) -> None:
    name = shortened(failure.id)
    page.text(x + LEFT - 0.08, y + TILE / 2, name, rotation=90, ha="right", va="center")
    left = [x + LEFT + column * (TILE + GAP) for column in range(4)]
    page.picture(left[0], y, TILE, TILE, shrunk(failure.image))
    page.picture(left[1], y, TILE, TILE, _dark_lines(failure.image))
    drawn = agreement(failure.image, failure.truth, failure.prediction)
    outlines(page.picture(left[2], y, TILE, TILE, drawn), failure.truth, failure.prediction)
    facts = failure.facts
    contrast = "--" if facts.contrast is None else f"{facts.contrast:.1f}"
    words = (
        f"Dice {failure.dice:.3f}",
        f"size {100 * facts.size:.1f}%",
        f"contrast {contrast}",
        f"lines {100 * facts.hair:.1f}%",
    )
    page.text(left[3], y, "\n".join(words), va="top", linespacing=1.25)
    named = [word for word, is_so in (("pale", failure.pale), ("hair", failure.hairy)) if is_so]
    if named:
        page.text(left[3], y + TILE, ", ".join(named), va="bottom", weight="bold", size=8)


def _dark_lines(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image in pale gray with its dark lines marked."""
    from matplotlib.colors import to_rgb

    from vmunet.measure.image_facts import at_side, hair_mask

    small = at_side(image)
    drawn = np.repeat(130 + 0.45 * small.mean(axis=2, keepdims=True), 3, axis=2)
    drawn[hair_mask(small)] = 255 * np.array(to_rgb(VERMILION))
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
