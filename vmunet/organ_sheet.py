"""One picture of a run on volumes: slices of each test case, the truth beside the prediction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.contact_sheet import GAP, PAPER, Pixels, write_text
from vmunet.data.slice_dataset import open_case
from vmunet.volume_sheet import draw_legend, legend_height, tile, tile_size

SLICES = 3  # of each case
TILE = 210  # the longer side of a slice on the sheet, px
HEADER = 32
CAPTION = 22


def draw_cases(
    arrays: Path,
    manifest: Mapping[str, Any],
    predictions: Mapping[str, NDArray[np.uint8]],
    title: str,
) -> Pixels:
    """Draw the sheet: a row for each case, slices from the feet up.

    Args:
        arrays: data/arrays/<view>, whose images and true labels are shown.
        manifest: its manifest.json.
        predictions: uint8 (depth, height, width) labels by case.
        title: one line that names the run and the data; ASCII.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    classes = list(manifest["classes"])
    total = GAP + 2 * SLICES * (TILE + GAP)
    rows = [
        _row(case, *open_case(arrays, case), labels, manifest["cases"][case]["spacing"], total)
        for case, labels in predictions.items()
    ]
    top = np.full((HEADER + legend_height(classes, total), total, 3), PAPER, dtype=np.uint8)
    write_text(top, title, (GAP, 22), 0.5)
    draw_legend(top, classes, HEADER)
    return np.concatenate([top, *rows])


def _row(
    case: str,
    image: NDArray,
    truth: NDArray,
    labels: NDArray,
    spacing: tuple[float, float, float] | None,
    total: int,
) -> Pixels:
    """Three slices of a case, each with the truth and then the prediction."""
    size = tile_size(image.shape[1:], (spacing or (1.0, 1.0, 1.0))[1:], TILE)
    row = np.full((size[0] + CAPTION + GAP, total, 3), PAPER, dtype=np.uint8)
    for column, z in enumerate(choose_slices(truth)):
        for side, (name, organs) in enumerate((("truth", truth), ("prediction", labels))):
            x = GAP + (2 * column + side) * (TILE + GAP)
            row[: size[0], x : x + size[1]] = tile(image[z], organs[z], size)
            text = f"{case}, slice {z + 1} of {len(image)}: {name}" if side == 0 else name
            write_text(row, text, (x, size[0] + 15), 0.38)
    return row


def choose_slices(truth: NDArray) -> list[int]:
    """Slices (SLICES of them) evenly through the part of a case that holds organs, by rule."""
    held = np.flatnonzero(truth.reshape(len(truth), -1).any(axis=1))
    first, last = (int(held[0]), int(held[-1])) if held.size else (0, len(truth) - 1)
    return [first + round((last - first) * (i + 0.5) / SLICES) for i in range(SLICES)]
