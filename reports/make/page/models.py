"""What every model makes of each test image or slice of a view, for the page's viewer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.make.figures.runs import Runs
from reports.make.page.cases import head, number_of, scores_of
from reports.make.page.pixels import drawing
from reports.make.page.volumes import mean_dice
from reports.make.results.metrics import Result, VolumeResult, score_again
from vmunet.data.slice_dataset import open_case
from vmunet.drawing.figures.slices import choose_slice
from vmunet.drawing.sheets.images import PALETTE, PREDICTION
from vmunet.errors import InputError
from vmunet.evaluation.stored import NAME, read_labels, read_masks

SIDE = 128  # the longest side of a mask beside many others, px


def models_of(runs: Runs, view: str, cases: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models of a view, the main one first; [] if there is no other model.

    `cases` are the viewer's of this view. Each model has a title, its run's key and links, and for
    each case its Dice and its mask. A run that the viewer has already needs no masks: `cases` is
    None.

    Raises:
        InputError: predictions or scores of a run are missing, or of other images.
    """
    shown = {run["key"] for run in cases["runs"]}
    models = []
    for variant in runs.models(view):
        result = runs.of(view, variant)[0]
        described = head(result) | {"title": runs.cell(variant[0]), "cases": None}
        if described["key"] not in shown:
            described["cases"] = _cases(runs, result, cases["ids"])
        models.append(described)
    return models


def _cases(runs: Runs, result: Result, ids: Sequence[str]) -> list[dict[str, Any]]:
    of = _of_volumes if isinstance(result, VolumeResult) else _of_images
    return [{"score": score, "prediction": mask} for score, mask in of(runs, result, ids)]


def _of_images(runs: Runs, result: Result, ids: Sequence[str]) -> list[tuple[float | None, str]]:
    stored = read_masks(runs.folder(result) / NAME)
    rows = scores_of(runs.root, result, "per_image.csv")
    if stored.ids != list(ids) or [row["id"] for row in rows] != list(ids):
        raise _foreign(runs, result)
    return [
        (number_of(row, "training_size_dice"), drawing(mask, [PREDICTION], SIDE))
        for row, mask in zip(rows, stored.masks, strict=True)
    ]


def _of_volumes(runs: Runs, result: Result, ids: Sequence[str]) -> list[tuple[float | None, str]]:
    labels = read_labels(runs.folder(result) / NAME)
    rows = scores_of(runs.root, result, "per_case.csv")
    cases = []
    for case in ids:
        _, truth = open_case(runs.root / "data/arrays" / result.run.view, case)
        of_case = [row for row in rows if row["case"] == case]
        if case not in labels or labels[case].shape != truth.shape or not of_case:
            raise _foreign(runs, result)
        chosen: NDArray[np.uint8] = labels[case][choose_slice(np.asarray(truth))]
        cases.append((mean_dice(of_case), drawing(chosen, PALETTE, SIDE)))
    return cases


def _foreign(runs: Runs, result: Result) -> InputError:
    return InputError(
        f"{runs.folder(result)}: {NAME} or the scores are of other cases than those of "
        f"{result.run.view}; {score_again(result.run)}"
    )
