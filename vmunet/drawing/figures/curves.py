"""Losses by epoch, with the selected epoch: a panel for each view."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmunet.drawing.figures.style import DOUBLE, INK, SINGLE, Page, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4  # the most panels side by side
HEIGHT = 3.9  # of a row of panels, cm
LEGEND = 1.1
RATIO = 4.0  # if the largest loss is so many times the smallest, the axis is logarithmic


@dataclass(frozen=True)
class Curve:
    """One run's losses.

    Attributes:
        label: the run's name in the legend; the same for all its seeds.
        place: the index of its look.
        train: training loss by epoch, from epoch 1.
        selection: the loss that selected the epoch, None if the training loss selected it.
        epoch: the selected epoch.
    """

    label: str
    place: int
    train: Sequence[float]
    selection: Sequence[float] | None
    epoch: int


def draw(panels: Sequence[tuple[str, Sequence[Curve]]], warning: str) -> "Figure":
    """Draw the panels: (title, curves) for each view."""
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    page = Page(DOUBLE if columns > 2 else SINGLE, rows * HEIGHT + LEGEND, warning)
    axes = [one for row in page.plots(rows, columns) for one in row]
    for place, (title, curves) in zip(axes, panels, strict=False):
        _draw_panel(place, title, curves)
    for spare in axes[len(panels) :]:
        spare.axis("off")
    for i in range(rows):
        axes[i * columns].set_ylabel("loss")
    for place in axes[max(0, len(panels) - columns) : len(panels)]:
        place.set_xlabel("epoch")
    _legend(page, panels)
    return page.figure


def _draw_panel(axes: "Axes", title: str, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    values = []
    for curve in curves:
        style = look(curve.place)
        epochs = range(1, len(curve.train) + 1)
        axes.plot(epochs, curve.train, color=style.colour, lw=0.6, ls=style.line, alpha=0.75)
        values += [*curve.train, *(curve.selection or ())]
        selecting = curve.train if curve.selection is None else curve.selection
        if curve.selection is not None:
            axes.plot(epochs, curve.selection, color=style.colour, lw=1.4, ls=style.line)
        axes.plot(
            [curve.epoch],
            [selecting[curve.epoch - 1]],
            color=style.colour,
            marker=style.marker,
            ms=4.5,
            mec=INK,
            mew=0.5,
        )
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    low = min(values)
    if low > 0 and max(values) / low >= RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _legend(page: Page, panels: Sequence[tuple[str, Sequence[Curve]]]) -> None:
    from matplotlib.lines import Line2D

    named = {curve.label: curve.place for _, curves in panels for curve in curves}
    handles = []
    for label, place in named.items():
        style = look(place)
        handles.append(
            Line2D(
                [], [], color=style.colour, ls=style.line, marker=style.marker, lw=1.4, label=label
            )
        )
    handles += [
        Line2D([], [], color=INK, lw=1.4, label="selecting loss"),
        Line2D([], [], color=INK, lw=0.6, label="training loss"),
    ]
    page.figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=5 if page.width > SINGLE else 2,
        handlelength=2.8,
        columnspacing=1.2,
    )
