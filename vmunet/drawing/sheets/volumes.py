"""One picture of a segmented CT volume: slices with the organs' outlines, and a legend."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vmunet.data.slices import window_ct
from vmunet.drawing.sheets.images import GAP, PALETTE, PAPER, Colour, Pixels, write_text

HOLLOW: Colour = (0, 0, 0)  # the line in the middle of the outlines, from the ninth organ on
COLUMNS, ROWS = 4, 3
TILE = 300  # the longer side of a slice on the sheet, px
LINE = 3  # px
CAPTION = 22
HEADER = 32
LEGEND = 24  # a line of the legend
SWATCH = 30
LETTER = 9  # width of a letter of the legend, px, at most


def choose_slices(depth: int) -> list[int]:
    """Up to COLUMNS x ROWS evenly spaced slices, whatever they show: the middles of as many
    equal parts of the volume, from inferior to superior."""
    count = min(depth, COLUMNS * ROWS)
    return [int((i + 0.5) * depth / count) for i in range(count)]


def draw_sheet(
    volume: NDArray,
    labels: NDArray[np.uint8],
    organs: Sequence[str],
    window: tuple[float, float],
    spacing: Sequence[float],
    title: str,
) -> Pixels:
    """Draw the sheet.

    Args:
        volume: (depth, height, width), HU.
        labels: uint8 of that shape; label 1 is the first organ.
        organs: the names of the labels 1, 2, ...
        window: low and high, HU, shown as black and white.
        spacing: mm per voxel along (depth, height, width): pixels that are not square are drawn
            as they lie in the patient.
        title: one line; ASCII.

    Returns:
        uint8 (height, width, 3), RGB. The patient's right is on the left, anterior is up.
    """
    chosen = choose_slices(len(volume))
    height, width = tile_size(volume.shape[1:], spacing[1:])
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    total = GAP + max(columns * (width + GAP), 640)
    top = HEADER + legend_height(organs, total)
    sheet = np.full((top + rows * (height + CAPTION + GAP), total, 3), PAPER, dtype=np.uint8)
    write_text(sheet, f"{title}   (left in the picture is the patient's right)", (GAP, 22), 0.5)
    draw_legend(sheet, organs, HEADER)
    for place, z in enumerate(chosen):
        row, column = divmod(place, columns)
        x, y = GAP + column * (width + GAP), top + row * (height + CAPTION + GAP)
        grey = window_ct(volume[z], *window)
        sheet[y : y + height, x : x + width] = tile(grey, labels[z], (height, width))
        write_text(sheet, f"slice {z + 1} of {len(volume)}", (x, y + height + 15))
    return sheet


def tile_size(
    shape: Sequence[int], spacing: Sequence[float], longer: int = TILE
) -> tuple[int, int]:
    """Height and width of a slice on the sheet, px, from its voxels and their mm."""
    lengths = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = longer / max(lengths)
    return max(1, round(lengths[0] * scale)), max(1, round(lengths[1] * scale))


def legend_height(organs: Sequence[str], width: int) -> int:
    """The legend's height on a sheet of this width, px."""
    places = _legend(organs, width)
    return places[-1][1] + LEGEND if places else 0


def draw_legend(sheet: Pixels, organs: Sequence[str], top: int) -> None:
    """Draw the organs' colours and names on a sheet, from the row `top` on."""
    for i, (x, y) in enumerate(_legend(organs, sheet.shape[1])):
        write_text(sheet, organs[i], (x + SWATCH + 6, top + y + 13), 0.45)
        sheet[top + y : top + y + 16, x : x + SWATCH] = (60, 60, 60)  # as on the slices
        line = np.array([[[x + 4, top + y + 8]], [[x + SWATCH - 5, top + y + 8]]])
        _draw_lines(sheet, [line], i)


def _legend(organs: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Where each organ's entry begins, (x, y), in lines of at most `width` px."""
    places, x, y = [], GAP, 0
    for organ in organs:
        needed = SWATCH + 6 + LETTER * len(organ) + 2 * GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + LEGEND
        places.append((x, y))
        x += needed
    return places


def tile(grey: NDArray[np.float32], labels: NDArray, size: tuple[int, int]) -> Pixels:
    """A slice, 0..1, at `size` (height, width) px with the outlines of its labels."""
    import cv2

    def scaled(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        shrinks = plane.shape[0] > size[0] or plane.shape[1] > size[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(plane, size[::-1], interpolation=how)  # type: ignore[return-value]

    drawn = np.ascontiguousarray(
        np.rint(scaled(grey) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    )
    for label in np.unique(labels[labels > 0]):
        inside = (scaled((labels == label).astype(np.float32)) >= 0.5).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        _draw_lines(drawn, outlines, int(label) - 1)
    return drawn


def _draw_lines(image: Pixels, lines: Sequence[NDArray], organ: int) -> None:
    """Closed lines in the organ's colour; from the ninth organ on they are hollow."""
    import cv2

    colour = PALETTE[organ % len(PALETTE)]
    cv2.drawContours(image, lines, -1, colour, LINE)
    if organ >= len(PALETTE):
        cv2.drawContours(image, lines, -1, HOLLOW, 1)
