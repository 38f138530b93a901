"""Reliability: how often a pixel is lesion, compared with the probability that a model gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import DOUBLE, FAINT, SINGLE, Page, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 9.0  # cm


@dataclass(frozen=True)
class Reliability:
    """One run, pooled over its seeds.

    Attributes:
        label: the run's name.
        place: the index of its look.
        edges: (bins + 1,) edges of the bins of probability, 0..1.
        pixels: (bins,) counts.
        probability, lesion: (bins,) the mean probability, and the part of the pixels that are
            lesion; nan in an empty bin.
    """

    label: str
    place: int
    edges: NDArray[np.float64]
    pixels: NDArray[np.float64]
    probability: NDArray[np.float64]
    lesion: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over pixels of |probability - lesion|."""
        errors = np.nan_to_num(np.abs(self.probability - self.lesion))
        return float((self.pixels * errors).sum() / self.pixels.sum())


def draw(panels: Sequence[tuple[str, Sequence[Reliability]]], warning: str) -> "Figure":
    """Draw the panels, (title, runs) for each view: the diagram, and the pixel counts below it."""
    width = SINGLE if len(panels) == 1 else DOUBLE
    page = Page(width, HEIGHT, warning)
    upper, lower = page.plots(2, len(panels), height_ratios=[3, 1], sharex=True)
    for axes, counts, (title, runs) in zip(upper, lower, panels, strict=True):
        _draw_diagram(axes, title, runs)
        _draw_counts(counts, runs)
    upper[0].set_ylabel("part of the pixels that are lesion")
    lower[0].set_ylabel("pixels")
    return page.figure


def _draw_diagram(axes: "Axes", title: str, runs: Sequence[Reliability]) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
    for run in runs:
        style, filled = look(run.place), run.pixels > 0
        axes.plot(
            run.probability[filled],
            run.lesion[filled],
            color=style.colour,
            ls=style.line,
            marker=style.marker,
            label=f"{run.label}: ECE {run.error:.3f}",
        )
    room = 0.09 * len(runs)  # for the legend, above the curves
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.04 + room), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_title(title)
    axes.legend(loc="upper left", handlelength=2.8, borderpad=0)


def _draw_counts(axes: "Axes", runs: Sequence[Reliability]) -> None:
    for run in runs:
        style = look(run.place)
        heights = np.maximum(run.pixels, 0.5)  # a logarithmic axis cannot show 0
        axes.stairs(heights, run.edges, baseline=0.5, color=style.colour, ls=style.line, lw=1.1)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set_xlabel("probability given to the pixel")
