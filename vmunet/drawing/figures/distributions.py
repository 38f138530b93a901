"""The Dice of every test image under every run: a row for each cell, a panel for each dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import BLUE, DOUBLE, FAINT, INK, SINGLE, VERMILION, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.72  # cm
AROUND = 1.9  # for the axis and the title, cm
RASTER = 500  # a panel with more points has them as pixels in the PDF
SPREAD = 0.13  # how far the points spread across their row, in rows


@dataclass(frozen=True)
class Row:
    """One cell under one protocol.

    Attributes:
        label: the cell's name.
        sound: whether it was trained under the sound protocol.
        dice: (images,) 0..1, a mean over the seeds if there are several; nan if undefined.
    """

    label: str
    sound: bool
    dice: NDArray[np.float64]


def by_median(rows: Sequence[Row]) -> list[Row]:
    """From the highest median down; ties by the mean, then by label."""

    def place(row: Row) -> tuple[float, float, str, bool]:
        return -float(np.nanmedian(row.dice)), -float(np.nanmean(row.dice)), row.label, row.sound

    return sorted(rows, key=place)


def draw(panels: Sequence[tuple[str, Sequence[Row]]], warning: str) -> "Figure":
    """Draw the panels: (title, rows) for each dataset."""
    most = max(len(rows) for _, rows in panels)
    width = SINGLE if len(panels) == 1 else DOUBLE
    page = Page(width, most * ROW + AROUND, warning)
    for axes, (title, rows) in zip(page.plots(1, len(panels))[0], panels, strict=True):
        _draw_panel(axes, title, by_median(rows), most)
    return page.figure


def _draw_panel(axes: "Axes", title: str, rows: Sequence[Row], most: int) -> None:
    places = np.arange(len(rows), dtype=float)
    scores = [row.dice[~np.isnan(row.dice)] for row in rows]
    axes.boxplot(
        scores,
        positions=places - 0.18,
        widths=0.26,
        orientation="horizontal",
        manage_ticks=False,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": "white", "linewidth": 0.7},
        medianprops={"color": INK, "linewidth": 1.5},
        whiskerprops={"linewidth": 0.7},
        capprops={"linewidth": 0.7},
    )
    beside = axes.get_yaxis_transform()  # x in parts of the axes, y in data
    raster = sum(map(len, scores)) > RASTER
    for place, row, own in zip(places, rows, scores, strict=True):
        # The points spread in steps of the golden ratio: evenly, and the same each time.
        across = (np.arange(len(own)) * 0.618034) % 1 - 0.5
        axes.plot(
            own,
            place + 0.2 + across * 2 * SPREAD,
            ls="none",
            marker="s" if row.sound else "o",
            ms=1.6 if raster else 2.2,
            mew=0,
            alpha=0.45 if raster else 0.7,
            color=VERMILION if row.sound else BLUE,
            rasterized=raster,
        )
        axes.plot([own.mean()], [place - 0.18], marker="D", ms=3, color="white", mec=INK, mew=0.7)
        axes.text(1.03, place, f"{own.mean():.3f}", va="center", transform=beside)
    for place in places[:-1]:
        axes.axhline(place + 0.5, color=FAINT, lw=0.3)
    axes.text(1.03, -0.72, "mean", va="center", transform=beside)
    axes.set_yticks(places, [row.label for row in rows])
    axes.set_ylim(most - 0.4, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Dice of an image")
    axes.set_title(title, loc="left")
