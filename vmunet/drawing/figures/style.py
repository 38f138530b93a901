"""The common style of the figures: sizes in print, fonts, colours, the warning's band, the files.

Widths are those of an IEEE column and page, so that a figure is printed at the size for which it
was drawn, and its text at 7 points or more. Runs differ in colour, line and marker, never only in
colour.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vmunet.drawing.sheets.images import PALETTE, Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 8.8, 18.1  # widths in print, cm
CM = 1 / 2.54  # in inches
DPI = 200  # of the PNG
BAND = 0.5  # height of the warning's band, cm


def shade(colour: Colour) -> str:
    """A colour of 0..255 as matplotlib writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, WHITE = map(shade, PALETTE)
INK, FAINT = "#141414", "#b0b0b0"
# Colours of pixels that are in both masks, only in the prediction, and only in the truth.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = PALETTE[2], PALETTE[0], PALETTE[4]

SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # TrueType, embedded
    "svg.hashsalt": "vmunet",
    "pdf.compression": 6,
}


@dataclass(frozen=True)
class Look:
    """How the lines and points of one run are drawn."""

    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str


LOOKS = (
    Look(BLUE, "-", "o"),
    Look(VERMILION, (0, (4, 1.5)), "s"),
    Look(GREEN, (0, (4, 1.2, 1, 1.2)), "^"),
    Look(PURPLE, (0, (1, 1)), "D"),
    Look(INK, (0, (6, 2)), "v"),
    Look(SKY, "-", "P"),
)


def look(index: int) -> Look:
    """The look of the run at this index; from the seventh run on, the looks repeat."""
    return LOOKS[index % len(LOOKS)]


@contextmanager
def settled() -> Iterator[None]:
    """matplotlib with these figures' settings, regardless of the user's own settings."""
    from matplotlib import style

    with style.context(SETTINGS, after_reset=True):
        yield


class Page:
    """A figure of a width and height in cm, with a band above it if there is a warning.

    Args:
        width, height: cm, without the band.
        warning: the band's text; if it is empty, there is no band.
    """

    def __init__(self, width: float, height: float, warning: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        self.top = band = BAND if warning else 0.0
        self.width, self.height = width, height + band
        self.figure = Figure(figsize=(self.width * CM, self.height * CM), dpi=DPI)
        FigureCanvasAgg(self.figure)
        if warning:
            low = 1 - band / self.height
            strip = Rectangle((0, low), 1, 1 - low, transform=self.figure.transFigure)
            strip.set(facecolor=ORANGE, edgecolor="none")
            self.figure.add_artist(strip)
            words = self.figure.text(
                0.5, (1 + low) / 2, warning, ha="center", va="center_baseline", weight="bold"
            )
            taken = words.get_window_extent().width / self.figure.bbox.width
            words.set_fontsize(SETTINGS["font.size"] * min(1.0, 0.97 / taken))

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        """Axes whose upper left corner is at (x, y) cm, below the band."""
        w, h = self.width, self.height
        return self.figure.add_axes((x / w, 1 - (self.top + y + height) / h, width / w, height / h))

    def picture(self, x: float, y: float, width: float, height: float, pixels: Any) -> "Axes":
        """Pixels, uint8 (height, width[, 3]), at a place in cm; axes without ticks."""
        axes = self.axes(x, y, width, height)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, linewidth=0.4, color=FAINT)
        return axes

    def text(self, x: float, y: float, words: str, **settings: Any) -> None:
        """Words at (x, y) cm, below the band."""
        self.figure.text(x / self.width, 1 - (self.top + y) / self.height, words, **settings)

    def plots(self, rows: int, columns: int, **settings: Any) -> list[list["Axes"]]:
        """Rows of axes that share the page and leave space for their labels."""
        rect = (0.0, 0.0, 1.0, 1 - self.top / self.height)
        self.figure.set_layout_engine(
            "constrained", rect=rect, w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.03
        )
        axes = self.figure.subplots(rows, columns, squeeze=False, **settings)
        return [list(row) for row in axes]


def save(figure: "Figure", stem: Path) -> None:
    """Write `stem`.pdf and `stem`.png; the same figure gives the same bytes."""
    nothing = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
    figure.savefig(stem.with_name(f"{stem.name}.pdf"), dpi=300, metadata=nothing)
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=DPI, metadata={"Software": None})


def agreement(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """An image in pale gray; colours show the pixels in both masks, in one, and in the other.

    Args:
        image: uint8 RGB (height, width, 3).
        truth, prediction: bool (height, width).

    Returns:
        uint8 RGB (height, width, 3).
    """
    gray = 95 + 0.6 * image.mean(axis=2, keepdims=True)
    drawn = np.repeat(gray, 3, axis=2)
    kinds: Sequence[tuple[np.ndarray, Colour]] = (
        (truth & prediction, TRUE_POSITIVE),
        (prediction & ~truth, FALSE_POSITIVE),
        (truth & ~prediction, FALSE_NEGATIVE),
    )
    for where, colour in kinds:
        drawn[where] = 0.3 * drawn[where] + 0.7 * np.array(colour)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def agreement_legend(page: Page, y: float) -> None:
    """Draw the legend of `agreement` and of the outlines over it, in a line around `y` cm."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = (
        (TRUE_POSITIVE, "found"),
        (FALSE_POSITIVE, "too much"),
        (FALSE_NEGATIVE, "missed"),
    )
    handles: list[Any] = [Patch(facecolor=shade(colour), label=words) for colour, words in kinds]
    handles.append(Line2D([], [], color=INK, lw=0.9, label="truth"))
    handles.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (2, 1)), label="prediction"))
    wide = page.width > SINGLE
    page.figure.legend(
        handles=handles,
        loc="center",
        ncols=5 if wide else 3,
        bbox_to_anchor=(0.5, 1 - (page.top + y) / page.height),
        handlelength=1.4,
        columnspacing=1.2,
        borderpad=0.1,
    )


def outlines(axes: "Axes", truth: np.ndarray, prediction: np.ndarray) -> None:
    """Draw the outlines of the truth (solid) and of the prediction (dashed) on a picture."""
    for mask, line, width in ((truth, "solid", 0.9), (prediction, (0, (2, 1)), 0.9)):
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[INK], linewidths=width, linestyles=[line])
