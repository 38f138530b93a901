"""The test volumes on the page: for each case the slice with the most organs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.make.page.cases import (
    AGREEMENT,
    LEGEND,
    OTHER,
    head,
    main_runs,
    number_of,
    origin_of,
    percent,
    scores_of,
)
from reports.make.page.layout import DASH
from reports.make.page.pixels import css, drawing, photograph
from reports.make.results.metrics import Result, VolumeResult, score_again
from reports.make.typeset.sheet import Origin
from vmunet.data.slice_dataset import open_case
from vmunet.drawing.figures.slices import choose_slice
from vmunet.drawing.sheets.images import PALETTE
from vmunet.errors import InputError
from vmunet.evaluation.stored import NAME, read_labels


def volume_view(
    root: Path, results: Sequence[Result], view: str, names: Mapping[str, str]
) -> dict[str, Any] | None:
    """The data of a view of volumes for the page's viewer; None if `results` have no run of it.

    `names` are the datasets'.

    Raises:
        InputError: predictions, scores or arrays are missing or do not fit one another.
    """
    runs = [result for result in main_runs(results, view) if isinstance(result, VolumeResult)]
    return _view(root, view, runs, origin_of(runs, names)) if runs else None


def _view(root: Path, view: str, runs: Sequence[VolumeResult], origin: Origin) -> dict[str, Any]:
    predictions = [(result, read_labels(root / Path(result.path).parent / NAME)) for result in runs]
    cases = sorted(predictions[0][1])
    slices = {}
    for case in cases:
        image, truth = open_case(root / "data/arrays" / view, case)
        z = choose_slice(truth)
        slices[case] = (z, len(truth), np.array(image[z]), np.array(truth[z]))
    organs = [
        [name.replace("-", " "), css(PALETTE[i % len(PALETTE)])]
        for i, name in enumerate(runs[0].data["classes"])
    ]
    different = [*LEGEND["agreement"], ["another organ", css(OTHER)]]
    return {
        "view": view,
        "title": f"{origin.tagged} at {runs[0].size}\u00d7{runs[0].size}",
        "warning": origin.caution if origin.kind == "phantom" else "",
        "noun": "case",
        "sides": ["Truth", "Prediction"],
        "legend": {"masks": organs, "agreement": different},
        "ids": cases,
        "images": [photograph(grey(image)) for _, _, image, _ in slices.values()],
        "runs": [_run(root, result, labels, slices) for result, labels in predictions],
    }


def grey(image: NDArray) -> NDArray[np.uint8]:
    """A slice with values 0..1, as 0..255."""
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _run(
    root: Path,
    result: VolumeResult,
    labels: Mapping[str, NDArray[np.uint8]],
    slices: Mapping[str, tuple[int, int, NDArray, NDArray]],
) -> dict[str, Any]:
    folder = root / Path(result.path).parent
    rows = scores_of(root, result, "per_case.csv")
    cases = []
    for case, (z, depth, _, truth) in slices.items():
        case_rows = [row for row in rows if row["case"] == case]
        if case not in labels or labels[case].shape != (depth, *truth.shape) or not case_rows:
            raise InputError(
                f"{folder}: {NAME} or per_case.csv does not fit the arrays of {case}; "
                f"{score_again(result.run)}"
            )
        cases.append(_case(truth, labels[case][z], case_rows, f"{z + 1} of {depth}"))
    return head(result) | {"cases": cases}


def _case(
    truth: NDArray, prediction: NDArray, rows: Sequence[Mapping[str, str]], place: str
) -> dict[str, Any]:
    """One slice: its layers, and the scores of the whole case."""
    dice = {row["organ"].replace("-", " "): number_of(row, "dice") for row in rows}
    mean = mean_dice(rows)
    marked = sum(int(row["truth_voxels"]) for row in rows)
    return {
        "score": mean,
        "size": marked,
        "truth": drawing(truth, PALETTE),
        "prediction": drawing(prediction, PALETTE),
        "agreement": drawing(_agreement(truth, prediction), (*AGREEMENT, OTHER)),
        "facts": [
            ["Mean Dice of the case", percent(mean)],
            ["Slice", place],
            ["Organs", f"{marked} voxels" if marked else DASH],
            *([f"Dice, {organ}", percent(value)] for organ, value in dice.items()),
        ],
    }


def mean_dice(rows: Sequence[Mapping[str, str]]) -> float | None:
    """A case's score from its rows of per_case.csv, one for each organ; None if undefined.

    It is the organs' mean Dice by the sound convention, which leaves out an organ that is absent
    in truth and prediction.
    """
    dice = [number_of(row, "dice") for row in rows]
    defined = [value for value in dice if value is not None]
    return sum(defined) / len(defined) if defined else None


def _agreement(truth: NDArray, prediction: NDArray) -> NDArray[np.uint8]:
    """1 the same organ, 2 predicted only, 3 missed, 4 another organ, 0 elsewhere."""
    same = (truth == prediction) & (truth > 0)
    only = [(prediction > 0) & (truth == 0), (truth > 0) & (prediction == 0)]
    return np.select([same, *only, truth != prediction], [1, 2, 3, 4], 0).astype(np.uint8)
