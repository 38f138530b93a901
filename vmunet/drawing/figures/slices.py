"""Slices of CT volumes with the organs' outlines, true and predicted: a row for each case."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import DOUBLE, INK, SINGLE, WHITE, Page, shade
from vmunet.drawing.sheets.images import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, GAP, BELOW = 0.85, 0.12, 0.45  # cm
HEADING, LEGEND = 0.5, 1.35
MARGIN = 0.12  # around the labels, in sides


@dataclass(frozen=True)
class Slice:
    """One slice of a case.

    Attributes:
        name: two lines: the case, why it is shown, and the slice's number.
        image: (height, width), 0..1.
        truth: uint8 (height, width), labels.
        predictions: each run's labels, like `truth`.
        words: the text below each prediction.
        aspect: height of a pixel divided by its width.
    """

    name: str
    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predictions: Sequence[NDArray[np.uint8]]
    words: Sequence[str]
    aspect: float


def choose_slice(truth: NDArray[np.uint8]) -> int:
    """The slice that holds the most organs; `truth` is (depth, height, width).

    If several do, it is the one with the most labelled pixels; if several of these do, the lowest.
    """
    organs = [np.unique(plane[plane > 0]).size for plane in truth]
    pixels = [np.count_nonzero(plane) for plane in truth]
    return max(range(len(truth)), key=lambda z: (organs[z], pixels[z], -z))


def choose_cases(dice: NDArray[np.float64], names: Sequence[str]) -> dict[str, int]:
    """The cases with the best, the median and the worst Dice; ties by name, each case once.

    Args:
        dice: (cases,); nan, for a case without an organ, counts as the worst.
        names: the cases' names.
    """
    order = sorted(range(len(names)), key=lambda i: (-np.nan_to_num(dice[i], nan=-1.0), names[i]))
    chosen = {"best": order[0]}
    if len(order) > 2:
        chosen["median"] = order[len(order) // 2]
    if len(order) > 1:
        chosen["worst"] = order[-1]
    return chosen


def cropped(one: Slice) -> Slice:
    """The part of a slice around its labels, true or predicted."""
    labelled = np.any([one.truth > 0, *(labels > 0 for labels in one.predictions)], axis=0)
    if not labelled.any():
        return one
    window = []
    for axis, side in enumerate(labelled.shape):
        places = np.flatnonzero(labelled.any(axis=1 - axis))
        margin = round(MARGIN * side)
        window.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1))
    part = tuple(window)
    return replace(
        one,
        image=one.image[part],
        truth=one.truth[part],
        predictions=[labels[part] for labels in one.predictions],
    )


def draw(
    slices: Sequence[Slice], runs: Sequence[str], organs: Sequence[str], warning: str
) -> "Figure":
    """Draw the figure: the image, the truth over each run's prediction.

    Args:
        slices: one for each row.
        runs: the predictions' names.
        organs: the names of the labels 1, 2, ...
        warning: the band's text, or ''.
    """
    slices = [cropped(one) for one in slices]
    columns = 1 + len(runs)
    width = SINGLE if columns == 2 else DOUBLE
    step = (width - LEFT) / columns
    tile = step - GAP
    heights = [tile * one.image.shape[0] / one.image.shape[1] * one.aspect for one in slices]
    height = HEADING + sum(heights) + BELOW * len(slices) + LEGEND
    page = Page(width, height, warning)
    for column, words in enumerate(("image", *runs)):
        x = LEFT + column * step + tile / 2
        page.text(x, HEADING - 0.14, words, ha="center", va="baseline")
    y = HEADING
    for one, tall in zip(slices, heights, strict=True):
        _draw_row(page, y, step, tile, tall, one)
        y += tall + BELOW
    _legend(page, y, organs)
    return page.figure


def _draw_row(page: Page, y: float, step: float, tile: float, tall: float, one: Slice) -> None:
    page.text(
        LEFT - 0.12,
        y + tall / 2,
        one.name,
        rotation=90,
        va="center",
        ha="right",
        multialignment="center",
        linespacing=1.1,
    )
    pixels = np.clip(np.rint(one.image * 255), 0, 255).astype(np.uint8)
    page.picture(LEFT, y, tile, tall, pixels)
    for column, (labels, under) in enumerate(zip(one.predictions, one.words, strict=True), 1):
        x = LEFT + column * step
        axes = page.picture(x, y, tile, tall, pixels // 2 + 40)
        _outline(axes, one.truth, labels)
        page.text(x + tile / 2, y + tall + 0.06, under, ha="center", va="top")


def _outline(axes: "Axes", truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    for organ in np.union1d(np.unique(truth), np.unique(labels)):
        if organ == 0:
            continue
        colour = shade(PALETTE[(int(organ) - 1) % len(PALETTE)])
        for mask, line, width in (
            (truth == organ, "solid", 1.1),
            (labels == organ, (0, (1.6, 1.0)), 1.1),
        ):
            if mask.any() and not mask.all():
                axes.contour(
                    mask, levels=[0.5], colors=[colour], linewidths=width, linestyles=[line]
                )
        if (truth == organ).any():
            _number(axes, truth == organ, int(organ), colour)


def _number(axes: "Axes", mask: NDArray[np.bool_], organ: int, colour: str) -> None:
    """Write the organ's number at the place that is farthest from its border."""
    import cv2
    from matplotlib.patheffects import withStroke

    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    axes.text(
        float(x),
        float(y),
        str(organ),
        color=colour,
        ha="center",
        va="center_baseline",
        weight="bold",
        path_effects=[withStroke(linewidth=1.6, foreground=INK)],
    )


def _legend(page: Page, y: float, organs: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=INK, lw=1.1, label="truth"),
        Line2D([], [], color=INK, lw=1.1, ls=(0, (1.6, 1.0)), label="prediction"),
    ]
    for i, organ in enumerate(organs):
        colour = shade(PALETTE[i % len(PALETTE)])
        handles.append(Line2D([], [], color=colour, lw=2.5, label=f"{i + 1} {organ}"))
        if colour == WHITE:  # on paper
            from matplotlib.patheffects import withStroke

            handles[-1].set_path_effects([withStroke(linewidth=3.4, foreground=INK)])
    page.figure.legend(
        handles=handles,
        loc="center",
        bbox_to_anchor=(0.5, 1 - (page.top + y + LEGEND / 2) / page.height),
        ncols=5 if page.width > SINGLE else 4,
        handlelength=1.6,
        columnspacing=1.0,
        borderpad=0.1,
    )
