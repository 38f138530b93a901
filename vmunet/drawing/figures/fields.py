"""Effective receptive fields before and after training, as in VMamba's Figure (Luo et al. 2016)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import SINGLE, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("before_bottleneck", "after_bottleneck", "before_output", "after_output")
PLACES = (("bottleneck", "at the bottleneck"), ("output", "at the output"))
DECADES = 4  # the span of the colours, down from the strongest pixel
LEFT, GAP, BELOW = 0.6, 0.2, 0.5  # cm
HEADING, SCALE = 0.5, 1.35


def draw(
    maps: Mapping[str, NDArray[np.float32]],
    areas: Mapping[str, Sequence[float]],
    warning: str,
) -> "Figure":
    """Draw the maps, a row for each place: both, or the output alone.

    Args:
        maps: of NAMES, or of those at the output, float32 (size, size): how much a pixel
            contributes, at least 0 and not 0 everywhere.
        areas: `r50`, `r99` and `centres`, a value for each map in its order: the share of the
            image's area that the smallest square with 50% and 99% of the contribution takes,
            without the part outside the image; and the squares' centre in px along both axes.
        warning: the band's text, or ''.
    """
    from matplotlib.colors import LogNorm

    tile = (SINGLE - LEFT - GAP) / 2 - 0.1
    names = list(maps)
    places = [place for place in PLACES if f"before_{place[0]}" in names]
    page = Page(SINGLE, HEADING + len(places) * (tile + BELOW) + SCALE, warning)
    norm = LogNorm(10.0**-DECADES, 1.0, clip=True)
    for column, words in enumerate(("before training", "after training")):
        x = LEFT + column * (tile + GAP)
        page.text(x + tile / 2, HEADING - 0.12, words, ha="center", va="bottom")
    for row, (place, words) in enumerate(places):
        y = HEADING + row * (tile + BELOW)
        page.text(0.35, y + tile / 2, words, rotation=90, ha="center", va="center")
        for column, moment in enumerate(("before", "after")):
            name = f"{moment}_{place}"
            x = LEFT + column * (tile + GAP)
            axes = page.axes(x, y, tile, tile)
            shares = maps[name] / float(maps[name].max())
            shown = axes.imshow(shares, norm=norm, cmap="cividis", interpolation="none")
            axes.set(xticks=[], yticks=[])
            index = names.index(name)
            half, most, centre = (float(areas[k][index]) for k in ("r50", "r99", "centres"))
            for share, line in ((half, "solid"), (most, (0, (3, 2)))):
                _draw_square(axes, len(maps[name]), centre, share, line)
            under = f"50% in {percent(half)}, 99% in {percent(most)}"
            page.text(x + tile / 2, y + tile + 0.07, under, ha="center", va="top")
    bar = page.axes(LEFT + tile / 2, page.height - page.top - SCALE + 0.15, tile + GAP, 0.22)
    scale = page.figure.colorbar(shown, cax=bar, orientation="horizontal")
    scale.set_label("contribution, relative to the strongest pixel", labelpad=1)
    return page.figure


def percent(share: float) -> str:
    """A share of an area in percent, with two figures."""
    return f"{100 * share:.2g}%" if share < 0.0995 else f"{100 * share:.0f}%"


def square(size: int, centre: float, share: float) -> tuple[float, float]:
    """The two ends of a square within the image, in px along both axes.

    Args:
        size: of the image, px.
        centre: of the square, px from the middle of the first pixel.
        share: the share of the image's area that the square takes, without the part outside it.
    """
    held = max(1, round(share**0.5 * size))  # pixels along an axis
    half = float(np.sort(np.abs(np.arange(size) - centre))[held - 1]) + 0.5
    return max(centre - half, -0.5), min(centre + half, size - 0.5)


def _draw_square(axes: "Axes", size: int, centre: float, share: float, line: Any) -> None:
    from matplotlib.patches import Rectangle

    low, high = square(size, centre, share)
    side = high - low
    axes.add_patch(Rectangle((low, low), side, side, fill=False, ec="white", lw=0.9, ls=line))
