"""Test images with the predictions of several runs, chosen by rule (the paper's Figure 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import (
    DOUBLE,
    SINGLE,
    Page,
    agreement,
    agreement_legend,
    outlines,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 256  # the most pixels of a picture: more than print can show
TILE = 2.7  # the largest side of a picture, cm
MARGIN = 0.95  # for the names at the left, cm
GAP, BELOW = 0.1, 0.42  # between pictures, and for the line below them, cm
HEADING, LEGEND = 0.8, 0.75


@dataclass(frozen=True)
class Prediction:
    """One run's predictions of the images.

    Attributes:
        label: the heading of its column, one or two lines.
        masks: bool (images, size, size).
        dice: (images,) 0..1.
    """

    label: str
    masks: NDArray[np.bool_]
    dice: NDArray[np.float64]


def lowest(dice: NDArray[np.float64], ids: Sequence[str], count: int) -> list[int]:
    """The `count` images with the lowest Dice, from the lowest up; ties by id, alphabetically.

    An image without a Dice (nan) counts as the lowest.
    """
    order = sorted(range(len(ids)), key=lambda i: (np.nan_to_num(dice[i], nan=-1.0), ids[i]))
    return order[:count]


def choose(
    dice: NDArray[np.float64], ids: Sequence[str], counts: Mapping[str, int]
) -> dict[str, list[int]]:
    """Choose the images that are shown, by rule: the best, those around the median, the worst.

    Args:
        dice, ids: (images,) each; the images are in the order of `lowest`, reversed.
        counts: the numbers of `best`, `median` and `worst` images.

    Returns:
        Indices from high to low Dice by group, each image once. If there are too few images, the
        worst have precedence, then the best.
    """
    order = lowest(dice, ids, len(ids))[::-1]
    worst = order[max(0, len(order) - counts["worst"]) :]
    rest = order[: len(order) - len(worst)]
    best, rest = rest[: counts["best"]], rest[counts["best"] :]
    middle = (len(order) - counts["median"]) // 2 - len(best)
    start = min(max(0, middle), max(0, len(rest) - counts["median"]))
    return {"best": best, "median": rest[start : start + counts["median"]], "worst": worst}


def draw(
    images: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    ids: Sequence[str],
    predictions: Sequence[Prediction],
    groups: Mapping[str, Sequence[int]],
    warning: str,
) -> "Figure":
    """Draw the figure: one image in each row.

    Args:
        images: uint8 RGB (images, size, size, 3).
        truth: bool (images, size, size).
        ids: the images' names.
        predictions: the first is of the run by which the rows were chosen; only this one gets a
            column that shows where it agrees with the truth.
        groups: the result of `choose`.
        warning: the band's text, or ''.
    """
    rows = [(name, i) for name, members in groups.items() for i in members]
    columns = 3 + len(predictions)
    width = SINGLE if columns <= 4 else DOUBLE
    tile = min(TILE, (width - MARGIN) / columns - GAP)
    step = (width - MARGIN) / columns
    height = HEADING + len(rows) * (tile + BELOW) + LEGEND
    page = Page(width, height, warning)
    main, *others = predictions
    headings = ["image", "truth", main.label, "agreement", *(other.label for other in others)]
    left = [MARGIN + column * step for column in range(columns)]
    for x, words in zip(left, headings, strict=True):
        page.text(x + tile / 2, HEADING - 0.15, words, ha="center", va="baseline", linespacing=1.1)
    for row, (_, i) in enumerate(rows):
        y = HEADING + row * (tile + BELOW)
        page.text(MARGIN - 0.12, y + tile / 2, shortened(ids[i]), rotation=90, **_MIDDLE)
        image = shrunk(images[i])
        places = iter(left)
        page.picture(next(places), y, tile, tile, image)
        page.picture(next(places), y, tile, tile, truth[i].astype(np.uint8) * 255)
        _mask(page, next(places), y, tile, main, i)
        map_axes = page.picture(
            next(places), y, tile, tile, agreement(images[i], truth[i], main.masks[i])
        )
        outlines(map_axes, truth[i], main.masks[i])
        for other in others:
            _mask(page, next(places), y, tile, other, i)
    _name_groups(page, groups, tile)
    agreement_legend(page, height - LEGEND / 2)
    return page.figure


_MIDDLE = {"ha": "right", "va": "center"}
_WORDS = {"best": "best", "median": "around the median", "worst": "worst"}


def _mask(page: Page, x: float, y: float, tile: float, run: Prediction, i: int) -> None:
    page.picture(x, y, tile, tile, run.masks[i].astype(np.uint8) * 255)
    page.text(x + tile / 2, y + tile + 0.06, f"Dice {run.dice[i]:.3f}", ha="center", va="top")


def _name_groups(page: Page, groups: Mapping[str, Sequence[int]], tile: float) -> None:
    from matplotlib.lines import Line2D

    row = 0
    for name, members in groups.items():
        if members:
            top = HEADING + row * (tile + BELOW)
            bottom = top + len(members) * (tile + BELOW) - BELOW
            page.text(
                0.1, (top + bottom) / 2, _WORDS[name], rotation=90, va="center", weight="bold"
            )
            ends = [1 - (page.top + y) / page.height for y in (top, bottom)]
            line = Line2D([0.46 / page.width] * 2, ends, lw=0.6, color="black")
            page.figure.add_artist(line)
        row += len(members)


def shortened(name: str) -> str:
    """As much of a name as fits beside a picture: its end, in which ids differ."""
    return name if len(name) <= 14 else "…" + name[-13:]


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (height, width[, 3]) of at most SIDE pixels, so that a PDF stays small."""
    import cv2

    if max(image.shape[:2]) <= SIDE:
        return image
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
