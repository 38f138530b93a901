"""All test images on the page, with the predictions of the main cell's runs.

For each view of `grid.ablation_views` the page shows the cell `base`, or else the first cell of the
grid, with its first seed, under each protocol that it was trained with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.make.files import read_rows, trusted
from reports.make.page.layout import DASH, source
from reports.make.page.pixels import css, drawing, photograph
from reports.make.results.data import origins
from reports.make.results.metrics import ImageResult, Result, score_again
from reports.make.typeset.sheet import Origin
from vmunet.drawing.sheets.images import PREDICTION, TRUTH
from vmunet.errors import InputError
from vmunet.evaluation.images import load_test_images
from vmunet.evaluation.stored import NAME, read_masks

MAIN = "base"
# The colours of an agreement: Okabe and Ito's, like those of the outlines.
BOTH, ADDED, MISSED, OTHER = (0, 158, 115), PREDICTION, TRUTH, (204, 121, 167)
AGREEMENT = (BOTH, ADDED, MISSED)
LEGEND = {
    "masks": [["truth", css(TRUTH)], ["prediction", css(PREDICTION)]],
    "agreement": [
        ["in both", css(BOTH)],
        ["predicted only", css(ADDED)],
        ["missed", css(MISSED)],
    ],
}


def main_runs(results: Sequence[Result], view: str) -> list[Result]:
    """The runs of a view whose cases are shown: those of the main cell with one seed."""
    of_view = [result for result in results if result.run.view == view]
    if not of_view:
        return []
    cells = [result.run.cell for result in of_view]
    cell = MAIN if MAIN in cells else cells[0]
    cell_results = [result for result in of_view if result.run.cell == cell]
    return [result for result in cell_results if result.run.seed == cell_results[0].run.seed]


def image_view(
    root: Path, results: Sequence[Result], view: str, names: Mapping[str, str]
) -> dict[str, Any] | None:
    """The data of a view of images for the page's viewer; None if `results` have no run of it.

    `names` are the datasets'.

    Raises:
        InputError: predictions, scores or arrays are missing, or name different images.
    """
    runs = [result for result in main_runs(results, view) if isinstance(result, ImageResult)]
    return _view(root, view, runs, origin_of(runs, names)) if runs else None


def origin_of(runs: Sequence[Result], names: Mapping[str, str]) -> Origin:
    """What the data of a view's runs are."""
    return origins(runs, {runs[0].dataset: names[runs[0].dataset]})[0]


def _view(root: Path, view: str, runs: Sequence[ImageResult], origin: Origin) -> dict[str, Any]:
    # Both protocols have the same test images, resized a little differently: one is shown.
    arrays = root / "data/arrays" / view / runs[0].run.protocol
    test = load_test_images(arrays)
    size = runs[0].size
    return {
        "view": view,
        "title": f"{origin.tagged} at {size}\u00d7{size}",
        "warning": origin.caution if origin.kind == "phantom" else "",
        "noun": "image",
        "sides": ["Truth", "Prediction"],
        "legend": LEGEND,
        "ids": test.ids,
        "images": [photograph(np.asarray(image)) for image in test.images],
        "runs": [_run(root, result, test.ids) for result in runs],
    }


def _run(root: Path, result: ImageResult, ids: Sequence[str]) -> dict[str, Any]:
    folder = root / Path(result.path).parent
    stored, scores = read_masks(folder / NAME), scores_of(root, result, "per_image.csv")
    if stored.ids != list(ids) or [row["id"] for row in scores] != list(ids):
        raise InputError(
            f"{folder}: {NAME} or per_image.csv is of other images than the arrays of "
            f"{result.run.view}; {score_again(result.run)}"
        )
    pairs = zip(stored.truth, stored.masks, scores, strict=True)
    return head(result) | {"cases": [_case(truth, mask, row) for truth, mask, row in pairs]}


def head(result: Result) -> dict[str, Any]:
    """The viewer's description of a run."""
    run, links = result.run, source(result.run.name, result.path, result.mlflow_run)
    return {
        "key": f"{run.cell}-{run.protocol}-{run.seed}",
        "title": f"{run.cell}, {run.protocol} protocol, seed {run.seed}",
        "metrics": links.metrics,
        "mlflow": links.mlflow,
    }


def _case(truth: NDArray, mask: NDArray, row: Mapping[str, str]) -> dict[str, Any]:
    """One image: its layers, the numbers by which it is sorted, and the facts below it.

    Lesion sizes are fractions of the image's pixels.
    """
    lesion = float(truth.mean())
    width, height = row["native_width"], row["native_height"]
    dice = number_of(row, "training_size_dice")
    return {
        "score": dice,
        "size": lesion,
        "truth": drawing(truth, [TRUTH]),
        "prediction": drawing(mask, [PREDICTION]),
        "agreement": drawing(_agreement(truth, mask), AGREEMENT),
        "facts": [
            ["Dice", percent(dice)],
            ["IoU", percent(number_of(row, "training_size_iou"))],
            ["Dice at the mask's own size", percent(number_of(row, "native_size_dice"))],
            ["IoU at the mask's own size", percent(number_of(row, "native_size_iou"))],
            ["Lesion", f"{100 * lesion:.1f}% of the image"],
            ["Predicted", f"{100 * float(mask.mean()):.1f}% of the image"],
            ["Own size", f"{width}\u00d7{height} px"],
        ],
    }


def _agreement(truth: NDArray, mask: NDArray) -> NDArray[np.uint8]:
    """1 in both, 2 predicted only, 3 missed, 0 elsewhere."""
    return np.select([truth & mask, mask, truth], [1, 2, 3], 0).astype(np.uint8)


def scores_of(root: Path, result: Result, name: str) -> list[dict[str, str]]:
    """The rows of a run's per_image.csv or per_case.csv (`name`)."""
    path = Path(result.path).with_name(name)
    with trusted(path, "the scores of each test image or case", score_again(result.run)):
        return read_rows(root / path)


def number_of(row: Mapping[str, str], name: str) -> float | None:
    """A field's number; None if the field is empty, because the score is undefined."""
    return float(row[name]) if row[name] else None


def percent(fraction: float | None) -> str:
    """A fraction 0..1 in percent, or a dash."""
    return DASH if fraction is None else f"{100 * fraction:.1f}"
