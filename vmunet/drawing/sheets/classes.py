"""One picture of a run of several classes: test images with true and predicted labels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vmunet.classes import Labels, likeliest, resized_planes
from vmunet.drawing.sheets.images import (
    COLUMNS,
    GAP,
    HEADER,
    TILE,
    Pixels,
    blank,
    choose,
    draw_groups,
    fit,
    tile,
    write_text,
)
from vmunet.drawing.sheets.labels import legend, paint

PAIRS = COLUMNS // 2  # images in a row: each has a tile of the truth and one of the prediction
LINE_WIDTH = 2


def draw(
    images: Pixels,
    truth: Labels,
    prediction: Labels,
    classes: Sequence[str],
    ids: Sequence[str],
    dice: npt.NDArray,
    title: str,
) -> Pixels:
    """Draw the sheet: each image twice, with the true and with the predicted labels.

    A class has one colour, so outlines of both on one tile could not be told apart.

    Args:
        images: uint8 (images, size, size, 3), RGB.
        truth, prediction: uint8 (images, size, size), labels.
        classes: names of the labels 1, 2, ...
        ids: a name per image.
        dice: (images,) 0..1, decides which images are shown and stands below them.
        title: one line that names the run and the data; ASCII.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    groups = choose(dice)
    width = GAP + COLUMNS * (TILE + GAP)
    key = legend(classes, width - 2 * GAP)[:, : width - 2 * GAP]
    header = HEADER + len(key) + GAP
    sheet = blank(groups, header, PAIRS)
    write_text(sheet, title, (GAP, 22), scale=0.55)
    about = "left truth, right prediction; Dice at the training size, mean over an image's classes"
    write_text(sheet, about, (GAP, 46))
    sheet[HEADER : HEADER + len(key), GAP : GAP + key.shape[1]] = key

    def draw_pair(i: int, x: int, y: int) -> None:
        for labels, left in ((truth[i], x), (prediction[i], x + TILE + GAP)):
            sheet[y : y + TILE, left : left + TILE] = _tile(images[i], labels)
        write_text(sheet, fit(ids[i]), (x, y + TILE + 13))
        write_text(sheet, f"Dice {dice[i]:.3f}", (x, y + TILE + 28))

    draw_groups(sheet, header, groups, draw_pair, PAIRS)
    return sheet


def _tile(image: Pixels, labels: Labels) -> Pixels:
    """An image at TILE x TILE with labels over it, their borders as smooth as a lesion's."""
    shares = np.stack([labels == label for label in range(int(labels.max()) + 1)])
    resized, _ = likeliest(resized_planes([shares.astype(np.float32)], TILE, TILE))
    return paint(tile(image, ()), resized, LINE_WIDTH)
