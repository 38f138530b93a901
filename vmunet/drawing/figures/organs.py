"""Dice by organ, case by case, under both conventions for missing organs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmunet.drawing.figures.style import BLUE, DOUBLE, FAINT, INK, VERMILION, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

HEIGHT = 7.2  # cm
ACROSS = 0.8  # the part of an organ's place that is used


@dataclass(frozen=True)
class Protocol:
    """One run's Dice, a mean over its seeds.

    Attributes:
        label: the run's name.
        paper, sound: (cases, organs) under each convention, 0..1; nan if undefined.
    """

    label: str
    paper: NDArray[np.float64]
    sound: NDArray[np.float64]


def draw(organs: Sequence[str], runs: Sequence[Protocol], warning: str) -> "Figure":
    """Draw a panel for each convention; `organs` names the columns of the runs' Dice."""
    page = Page(DOUBLE, HEIGHT, warning)
    first, second = page.plots(1, 2, sharey=True)[0]
    _draw_panel(first, "the paper's convention", organs, [run.paper for run in runs])
    _draw_panel(second, "sound convention", organs, [run.sound for run in runs])
    first.set_ylabel("Dice of a case")
    first.set_ylim(-0.03, 1.03)
    handles = [_handle(i, run.label) for i, run in enumerate(runs)]
    page.figure.legend(handles=handles, loc="outside lower center", ncols=len(runs))
    return page.figure


_COLOURS, _MARKERS, _HATCHES = (BLUE, VERMILION), ("o", "s"), ("", "////")


def _draw_panel(
    axes: "Axes", title: str, organs: Sequence[str], scores: Sequence[NDArray[np.float64]]
) -> None:
    width = ACROSS / len(scores)
    for i, dice in enumerate(scores):
        places = np.arange(len(organs)) + (i + 0.5) * width - ACROSS / 2
        columns = [column[~np.isnan(column)] for column in dice.T]
        colour, marker, hatch = _COLOURS[i % 2], _MARKERS[i % 2], _HATCHES[i % 2]
        axes.boxplot(
            columns,
            positions=places,
            widths=0.85 * width,
            manage_ticks=False,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": "white", "edgecolor": colour, "hatch": hatch, "linewidth": 0.7},
            medianprops={"color": INK, "linewidth": 1.5},
            whiskerprops={"linewidth": 0.6, "color": colour},
            capprops={"linewidth": 0.6, "color": colour},
        )
        for place, own in zip(places, columns, strict=True):
            across = ((np.arange(len(own)) * 0.618034) % 1 - 0.5) * 0.5 * width
            axes.plot(
                place + across,
                own,
                ls="none",
                marker=marker,
                ms=2.3,
                mew=0.3,
                mec="white",
                color=colour,
            )
    counts = [
        int((~np.isnan(np.stack(scores)[:, :, j])).sum(axis=1).min()) for j in range(len(organs))
    ]
    names = [f"{organ} ({n})" for organ, n in zip(organs, counts, strict=True)]
    axes.set_xticks(np.arange(len(organs)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    for j in range(1, len(organs)):
        axes.axvline(j - 0.5, color=FAINT, lw=0.3)
    axes.set_xlim(-0.5, len(organs) - 0.5)
    axes.set_title(title)


def _handle(i: int, label: str) -> "Patch":
    from matplotlib.patches import Patch

    return Patch(facecolor="white", edgecolor=_COLOURS[i % 2], hatch=_HATCHES[i % 2], label=label)
