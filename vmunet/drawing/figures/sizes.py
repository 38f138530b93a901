"""Dice against the size of the lesion: every test image, and medians by size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import BLUE, DOUBLE, INK, SINGLE, VERMILION, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 6.0  # cm
MOST_BINS = 10
FEW = 30  # images: a bin with fewer has no interval
RESAMPLES = 1000
SEED = 0
RASTER = 1000  # a panel with more points has them as pixels in the PDF
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Floats = NDArray[np.float64]


def binned(size: Floats, dice: Floats) -> Floats:
    """Medians of bins with equally many images.

    Args:
        size: (images,) the lesion's share of the image, above 0.
        dice: (images,) 0..1.

    Returns:
        (bins, 6): the smallest, median and largest size of a bin, the median Dice and its 95%
        bootstrap interval, nan for a bin of fewer than FEW images. The number of bins is about the
        square root of the number of images, at most MOST_BINS.
    """
    order = np.argsort(size, kind="stable")
    count = min(MOST_BINS, max(1, int(np.sqrt(len(order)))))
    generator = np.random.default_rng(SEED)
    bins = []
    for members in np.array_split(order, count):
        low = high = np.nan
        if len(members) >= FEW:
            drawn = generator.integers(len(members), size=(RESAMPLES, len(members)))
            medians = np.median(dice[members][drawn], axis=1)
            low, high = np.quantile(medians, [0.025, 0.975])
        own = size[members]
        middle = float(np.median(dice[members]))
        bins.append([own.min(), np.median(own), own.max(), middle, low, high])
    return np.array(bins)


def draw(panels: Sequence[tuple[str, Floats, Floats]], warning: str) -> "Figure":
    """Draw the panels: (title, size, dice) for each view; sizes above 0."""
    page = Page(SINGLE if len(panels) == 1 else DOUBLE, HEIGHT, warning)
    for i, (axes, panel) in enumerate(zip(page.plots(1, len(panels))[0], panels, strict=True)):
        _draw_panel(axes, *panel)
        if i == 0:
            axes.set_ylabel("Dice of an image")
            handles, labels = axes.get_legend_handles_labels()
            page.figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return page.figure


def _draw_panel(axes: "Axes", title: str, size: Floats, dice: Floats) -> None:
    axes.plot(
        size,
        dice,
        ls="none",
        marker="o",
        ms=2.4,
        mew=0,
        alpha=0.5,
        color=BLUE,
        label="image",
        rasterized=len(size) > RASTER,
    )
    smallest, middle, largest, median, low, high = binned(size, dice).T
    axes.errorbar(
        middle,
        median,
        yerr=np.maximum(0, [median - low, high - median]),
        color=INK,
        mfc=VERMILION,
        marker="s",
        ms=4,
        mew=0.6,
        lw=1.0,
        elinewidth=0.8,
        capsize=2,
        label="median of a size class",
    )
    for left, right, y in zip(smallest, largest, median, strict=True):
        axes.plot([left, right], [y, y], color=INK, lw=0.5)
    axes.set_xscale("log")
    axes.set_xlim(size.min() / 1.25, min(1.3, size.max() * 1.25))
    left, right = axes.get_xlim()
    ticks = [tick for tick in TICKS if left <= tick <= right]
    axes.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("the lesion's share of the image")
    axes.set_title(title)
