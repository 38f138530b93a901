"""The same test images, or slices, as every model sees them: a picture for each model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.pictures import Prediction, shortened, shrunk
from vmunet.drawing.figures.slices import Slice, cropped
from vmunet.drawing.figures.style import (
    DOUBLE,
    WHITE,
    Page,
    agreement,
    agreement_legend,
    outlines,
    shade,
)
from vmunet.drawing.sheets.images import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 10  # pictures side by side; more of them go on below
TILE = 2.4  # the largest width of a picture, cm
LEFT, GAP, BELOW, LEGEND = 0.85, 0.1, 0.75, 0.75  # cm; BELOW is for two lines of text


@dataclass(frozen=True)
class _Tile:
    """A picture and the two lines below it: a model's name and its score.

    `masks` are the truth and the prediction whose outlines are drawn, if any.
    """

    pixels: NDArray[np.uint8]
    name: str
    score: str = ""
    best: bool = False
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None


@dataclass(frozen=True)
class _Row:
    """A test image or slice; `shape` is a tile's height divided by its width."""

    name: str
    shape: float
    tiles: Sequence[_Tile]


def draw_images(
    images: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    ids: Sequence[str],
    predictions: Sequence[Prediction],
    groups: Mapping[str, Sequence[int]],
    warning: str,
) -> "Figure":
    """Draw test images: each model's map of agreement with the truth.

    Args:
        images: uint8 RGB (images, size, size, 3).
        truth: bool (images, size, size).
        ids: the images' names.
        predictions: a picture each; the first is of the model by which the images were chosen.
        groups: the result of `pictures.choose`.
        warning: the band's text, or ''.
    """
    rows = []
    for group, members in groups.items():
        for i in members:
            scores = [float(one.dice[i]) for one in predictions]
            tiles = [_Tile(shrunk(images[i]), "image")]
            for one, score in zip(predictions, scores, strict=True):
                pixels = agreement(images[i], truth[i], one.masks[i])
                tiles.append(_tile(pixels, one.label, score, scores, (truth[i], one.masks[i])))
            rows.append(_Row(f"{group}:\n{shortened(ids[i])}", 1.0, tiles))
    return _panel(rows, agreement_legend, warning)


def draw_slices(
    slices: Sequence[Slice],
    models: Sequence[str],
    scores: Sequence[Sequence[float]],
    organs: Sequence[str],
    warning: str,
) -> "Figure":
    """Draw slices: the organs that each model finds, in colour.

    Args:
        slices: the cases' slices, with a prediction of each model.
        models: the models' names.
        scores: each slice's scores, 0..1, one of each model; nan if undefined.
        organs: the names of the labels 1, 2, ...
        warning: the band's text, or ''.
    """
    rows = []
    for one, of_models in zip([cropped(one) for one in slices], scores, strict=True):
        tiles = [
            _Tile(_coloured(one.image, np.zeros_like(one.truth)), "image"),
            _Tile(_coloured(one.image, one.truth), "truth"),
        ]
        for name, labels, score in zip(models, one.predictions, of_models, strict=True):
            tiles.append(_tile(_coloured(one.image, labels), name, score, of_models))
        height, width = one.image.shape
        rows.append(_Row(one.name, height / width * one.aspect, tiles))
    return _panel(rows, lambda page, y: _organ_legend(page, y, organs), warning)


def _tile(
    pixels: NDArray[np.uint8],
    name: str,
    score: float,
    scores: Sequence[float],
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> _Tile:
    best = len(scores) > 1 and score == np.nanmax([*scores, -1.0])
    text = "--" if np.isnan(score) else f"{score:.3f}"
    return _Tile(pixels, name, text, bool(best), masks)


def _panel(rows: Sequence[_Row], legend: Callable[[Page, float], Any], warning: str) -> "Figure":
    """The rows, each as one or several lines of pictures."""
    count = max(len(row.tiles) for row in rows)
    lines = -(-count // MOST)
    columns = -(-count // lines)
    step = (DOUBLE - LEFT) / columns
    tile = min(TILE, step - GAP)
    heights = [lines * (tile * row.shape + BELOW) for row in rows]
    page = Page(DOUBLE, GAP + sum(heights) + LEGEND, warning)
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        tall = tile * row.shape
        page.text(
            LEFT - 0.12,
            y + (height - BELOW) / 2,
            row.name,
            rotation=90,
            ha="right",
            va="center",
            multialignment="center",
            linespacing=1.1,
        )
        for place, one in enumerate(row.tiles):
            line, column = divmod(place, columns)
            x, top = LEFT + column * step, y + line * (tall + BELOW)
            axes = page.picture(x, top, tile, tall, one.pixels)
            if one.masks:
                outlines(axes, *one.masks)
            weight = "bold" if one.best else "normal"
            below = top + tall + 0.07
            page.text(x + tile / 2, below, one.name, ha="center", va="top")
            page.text(x + tile / 2, below + 0.3, one.score, ha="center", va="top", weight=weight)
        y += height
    legend(page, page.height - page.top - LEGEND / 2)
    return page.figure


def _coloured(image: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A slice with values 0..1 in gray, its labels in colour: uint8 RGB (height, width, 3)."""
    gray = np.clip(255 * image, 0, 255).astype(np.float32)
    drawn = np.repeat(gray[..., None], 3, axis=2)
    colours = np.array([PALETTE[k % len(PALETTE)] for k in range(255)], np.float32)
    where = labels > 0
    drawn[where] = 0.35 * drawn[where] + 0.65 * colours[labels[where] - 1]
    return np.rint(drawn).astype(np.uint8)


def _organ_legend(page: Page, y: float, organs: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = []
    for i, organ in enumerate(organs):
        colour = shade(PALETTE[i % len(PALETTE)])
        edge = "black" if colour == WHITE else colour  # white on paper
        handles.append(Patch(facecolor=colour, edgecolor=edge, linewidth=0.5, label=organ))
    page.figure.legend(
        handles=handles,
        loc="center",
        bbox_to_anchor=(0.5, 1 - (page.top + y) / page.height),
        ncols=max(1, len(handles)),
        handlelength=1.2,
        columnspacing=1.0,
        borderpad=0.1,
    )
