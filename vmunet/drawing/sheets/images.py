"""One picture of a run: test images with the true and the predicted outline, worst to best."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vmunet.files import whole_file

Pixels = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]
Member = TypeVar("Member")  # the type of a group's members, for example an image's index

# Okabe and Ito's palette, RGB: colour-blind readers can tell it apart, also on skin.
TRUTH: Colour = (0, 114, 178)
PREDICTION: Colour = (230, 159, 0)
INK: Colour = (20, 20, 20)
PAPER: Colour = (255, 255, 255)
# The same palette for classes and organs, with white instead of black: black is the outlines' rim.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (255, 255, 255),
)

COLUMNS = 8
TILE = 192  # side of a tile, px: a 64 px image is enlarged until its outlines can be told apart
GAP = 8
CAPTION = 34  # two lines below a tile
HEADER = 56
LABEL = 22  # the heading above each group


def choose(dice: npt.NDArray) -> list[tuple[str, list[int]]]:
    """Choose the images to show by a rule, not by hand.

    Args:
        dice: (images,) per-image Dice.

    Returns:
        Named groups of indices, each from worst to best (ties in the given order). Up to 24
        images: all of them. More: the 8 worst, the 8 around the median, the 8 best.
    """
    order = np.argsort(dice, kind="stable").tolist()
    n = len(order)
    if n <= 3 * COLUMNS:
        return [(f"all {n} images, worst to best", order)]
    middle = (n - COLUMNS) // 2
    return [
        (f"worst {COLUMNS} of {n}", order[:COLUMNS]),
        (f"{COLUMNS} around the median", order[middle : middle + COLUMNS]),
        (f"best {COLUMNS}", order[-COLUMNS:]),
    ]


def draw(
    images: Pixels,
    truth: Masks,
    prediction: Masks,
    ids: Sequence[str],
    dice: npt.NDArray,
    title: str,
) -> Pixels:
    """Draw the sheet.

    Args:
        images: uint8 (images, size, size, 3), RGB.
        truth, prediction: bool (images, size, size).
        ids: a name per image.
        dice: (images,) 0..1, decides which images are shown and stands below them.
        title: one line that names the run and the data; ASCII.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    groups = choose(dice)
    sheet = blank(groups, HEADER)
    write_text(sheet, title, (GAP, 22), scale=0.55)
    write_text(sheet, "truth", (GAP + 34, 46))
    write_text(sheet, "prediction", (GAP + 134, 46))
    write_text(sheet, "Dice per image at the training size", (GAP + 254, 46))
    for x, colour in ((GAP, TRUTH), (GAP + 100, PREDICTION)):
        sheet[38:46, x : x + 28] = colour

    def draw_image(i: int, x: int, y: int) -> None:
        # The truth's line is wider, so that it shows on both sides of an equal prediction.
        outlines = ((truth[i], TRUTH, 4), (prediction[i], PREDICTION, 2))
        sheet[y : y + TILE, x : x + TILE] = tile(images[i], outlines)
        write_text(sheet, fit(ids[i]), (x, y + TILE + 13))
        write_text(sheet, f"Dice {dice[i]:.3f}", (x, y + TILE + 28))

    draw_groups(sheet, HEADER, groups, draw_image)
    return sheet


def blank(
    groups: Sequence[tuple[str, Sequence[Any]]], header: int, per_row: int = COLUMNS
) -> Pixels:
    """An empty sheet for the groups, below a header of this height, px; see `draw_groups`."""
    rows = sum(-(-len(members) // per_row) for _, members in groups)
    height = header + LABEL * len(groups) + rows * (TILE + CAPTION + GAP)
    return np.full((height, GAP + COLUMNS * (TILE + GAP), 3), PAPER, dtype=np.uint8)


def draw_groups(
    sheet: Pixels,
    y: int,
    groups: Sequence[tuple[str, Sequence[Member]]],
    draw_member: Callable[[Member, int, int], None],
    per_row: int = COLUMNS,
) -> None:
    """Draw each group's heading and its members in rows, from the row of pixels `y` on.

    Args:
        draw_member: draws a member at (x, y), its upper left corner.
        per_row: the number of members in a row; each has COLUMNS / per_row tiles.
    """
    width = COLUMNS // per_row * (TILE + GAP)
    for heading, members in groups:
        write_text(sheet, heading, (GAP, y + 14), scale=0.45)
        y += LABEL
        for place, member in enumerate(members):
            row, column = divmod(place, per_row)
            draw_member(member, GAP + column * width, y + row * (TILE + CAPTION + GAP))
        y += -(-len(members) // per_row) * (TILE + CAPTION + GAP)


def write(path: Path, sheet: Pixels) -> None:
    """Write a drawn sheet as PNG, completely or not at all."""
    import cv2

    encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    with whole_file(path) as part:
        part.write_bytes(encoded.tobytes())


def tile(image: Pixels, outlines: Sequence[tuple[Masks, Colour, int]]) -> Pixels:
    """An image at TILE x TILE, whatever its proportions, with the outlines of masks over it.

    Args:
        image: uint8 (height, width, 3), RGB.
        outlines: each a mask, bool (height, width), its colour and the line's width in pixels.
    """
    import cv2

    grows = image.shape[0] < TILE
    how = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    drawn = np.empty((TILE, TILE, 3), dtype=np.uint8)
    cv2.resize(np.ascontiguousarray(image), (TILE, TILE), dst=drawn, interpolation=how)
    for mask, colour, width in outlines:
        smooth = cv2.resize(mask.astype(np.float32), (TILE, TILE), interpolation=how)
        contours, _ = cv2.findContours(
            (smooth >= 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, contours, -1, colour, thickness=width, lineType=cv2.LINE_AA)
    return drawn


def fit(name: str) -> str:
    """As much of a name as fits below a tile. The end is kept, because ids differ there."""
    return name if len(name) <= 24 else ".." + name[-22:]


def write_text(
    sheet: Pixels, text: str, place: tuple[int, int], scale: float = 0.42, thickness: int = 1
) -> None:
    """Write a line of ASCII; `place` is the left end of its base line, (x, y)."""
    import cv2

    plain = text.encode("ascii", "replace").decode()  # the built-in font has only ASCII
    cv2.putText(sheet, plain, place, cv2.FONT_HERSHEY_SIMPLEX, scale, INK, thickness, cv2.LINE_AA)
