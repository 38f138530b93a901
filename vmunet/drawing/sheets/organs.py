"""Pictures of volumes: slices of each case with the outlines of the truth, and of a prediction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.data.slice_dataset import open_case
from vmunet.drawing.sheets.images import GAP, PAPER, Pixels, write_text
from vmunet.drawing.sheets.volumes import draw_legend, legend_height, tile, tile_size

TILES = 6  # slices of each case's truth; with a prediction beside it, half as many
TILE = 210  # the longer side of a slice on the sheet, px
HEADER = 32
CAPTION = 22

Drawn = tuple[int, str, NDArray]  # a slice's index, the text below it, its labels


def draw_cases(
    arrays: Path,
    manifest: Mapping[str, Any],
    cases: Sequence[str],
    title: str,
    predictions: Mapping[str, NDArray[np.uint8]] | None = None,
) -> Pixels:
    """Draw the sheet: a row for each case, slices from the feet up.

    Args:
        arrays: data/arrays/<view>, whose images and true labels are shown.
        manifest: its manifest.json.
        cases: the cases to show.
        title: one line that names the run and the data; ASCII.
        predictions: uint8 (depth, height, width) labels by case, to be shown beside the truth.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    classes = list(manifest["classes"])
    total = GAP + TILES * (TILE + GAP)
    top = np.full((HEADER + legend_height(classes, total), total, 3), PAPER, dtype=np.uint8)
    write_text(top, title, (GAP, 22), 0.5)
    draw_legend(top, classes, HEADER)
    rows = [top]
    for case in cases:
        image, truth = open_case(arrays, case)
        count = TILES if predictions is None else TILES // 2
        drawn: list[Drawn] = []
        for z in choose_slices(truth, count):
            place = f"{case}, slice {z + 1} of {len(image)}"
            if predictions is None:
                drawn.append((z, place, truth[z]))
                continue
            drawn.append((z, f"{place}: truth", truth[z]))
            drawn.append((z, "prediction", predictions[case][z]))
        rows.append(_row(image, drawn, manifest["cases"][case]["spacing"], total))
    return np.concatenate(rows)


def _row(
    image: NDArray, drawn: Sequence[Drawn], spacing: Sequence[float] | None, total: int
) -> Pixels:
    """Slices of a case in one row."""
    size = tile_size(image.shape[1:], (spacing or (1.0, 1.0, 1.0))[1:], TILE)
    row = np.full((size[0] + CAPTION + GAP, total, 3), PAPER, dtype=np.uint8)
    for column, (z, words, labels) in enumerate(drawn):
        x = GAP + column * (TILE + GAP)
        row[: size[0], x : x + size[1]] = tile(image[z], labels, size)
        write_text(row, words, (x, size[0] + 15), 0.38)
    return row


def choose_slices(truth: NDArray, count: int) -> list[int]:
    """Choose `count` slices by rule: evenly spaced in the part of a case that holds organs."""
    held = np.flatnonzero(truth.reshape(len(truth), -1).any(axis=1))
    first, last = (int(held[0]), int(held[-1])) if held.size else (0, len(truth) - 1)
    return [first + round((last - first) * (i + 0.5) / count) for i in range(count)]
