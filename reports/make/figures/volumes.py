"""Figures of CT volumes: Dice by organ, and slices with the organs' outlines."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.make.figures.runs import Drawn, Runs
from reports.make.results.metrics import Result, score_again
from vmunet.data.arrays import load_manifest
from vmunet.data.slice_dataset import open_case
from vmunet.drawing.figures import models as drawn_models
from vmunet.drawing.figures import organs, slices
from vmunet.errors import InputError
from vmunet.evaluation.stored import NAME, read_labels


def by_organ(runs: Runs) -> Iterator[Drawn]:
    """Dice by organ of each view's main cell under each protocol."""
    for view in runs.volume_views:
        results, protocols = [], []
        for variant in runs.compared(view):
            variant_results = runs.of(view, variant)
            classes = variant_results[0].data["classes"]
            paper, sound = (
                _mean([_by_case(runs, result, column) for result in variant_results])
                for column in ("paper_dice", "dice")
            )
            protocols.append(organs.Protocol(f"{runs.label(variant)} protocol", paper, sound))
            results += variant_results
        names = [runs.organs.get(name, name) for name in classes]
        drawn = organs.draw(names, protocols, runs.warning(results))
        yield Drawn(
            f"organs-{view}",
            f"Dice by organ: {runs.title(view)}",
            "Dice of each test case by organ, under both conventions for organs that are missing: "
            "in the paper's one that is absent and not predicted, or missed, counts as 0 and one "
            "that is predicted but absent as 1; in the sound one an organ that is absent in both "
            "is left out, and one of the two alone counts as 0. In brackets the cases that define "
            "the figure, the fewest of the runs. A point a case, a box from quartile to quartile."
            f"{runs.several_seeds('A case counts with its mean over')} {runs.source(results)}",
            f"Box plots of {len(names)} organs. Median Dice under {protocols[0].label} and the "
            f"sound convention: {_medians(names, protocols[0].sound)}.",
            results,
            drawn,
        )


def outlined_slices(runs: Runs) -> Iterator[Drawn]:
    """Slices of the best, median and worst case of each view's main run."""
    for view in runs.volume_views:
        variants = runs.compared(view)
        results = [runs.of(view, variant)[0] for variant in variants]
        main = results[0]
        rows, _, classes = _rows(runs, view, results)
        names, chosen = _chosen(_means(runs, main))
        labels_of = [f"{runs.label(variant)} protocol" for variant in variants]
        ranks = ", ".join(f"{rank} {names[i]}" for rank, i in chosen.items())
        yield Drawn(
            f"slices-{view}",
            f"Slices: {runs.title(view)}",
            f"The cases of the best, median and worst mean Dice (sound convention, over the "
            f"organs) of {main.run.name} among {len(names)} test cases, ties by name: {ranks}. Of "
            "each the slice with the most organs, of several the one with the most labelled "
            "pixels, cropped to what is labelled. Solid: truth; dashed: prediction; a number names "
            f"the organ. Dice beneath is the whole case's.{_sides(main)}"
            f"{runs.first_seed()} {runs.source(results)}",
            f"Slices of {len(rows)} CT cases with the outlines of up to {len(classes)} "
            f"organs, true and predicted; mean Dice {rows[0].words[0].split()[-1]} in the first "
            f"row, {rows[-1].words[0].split()[-1]} in the last.",
            results,
            slices.draw(rows, labels_of, classes, runs.warning(results)),
        )


def _rows(
    runs: Runs, view: str, results: Sequence[Result]
) -> tuple[list[slices.Slice], list[list[float]], list[str]]:
    """A slice of the best, median and worst case of the first result, with all predictions.

    Also each slice's scores, the mean Dice of its case by every result, and the organs' names.
    """
    arrays = runs.root / "data/arrays" / view
    manifest = load_manifest(arrays)
    means = [_means(runs, result) for result in results]
    names, chosen = _chosen(means[0])
    labels = [read_labels(runs.folder(result) / NAME) for result in results]
    rows, scores = [], []
    for rank, i in chosen.items():
        case = names[i]
        image, truth = open_case(arrays, case)
        predicted = [
            _labels_of(runs, result, run_labels, case, truth.shape)
            for result, run_labels in zip(results, labels, strict=True)
        ]
        scores.append([float(mean[case]) for mean in means])
        rows.append(_slice(manifest, case, rank, image, truth, predicted, scores[-1]))
    return rows, scores, list(manifest["classes"])


def _means(runs: Runs, result: Result) -> pd.Series:
    """Each case's Dice, the mean over its organs."""
    return _by_case(runs, result, "dice").mean(axis=1)


def _chosen(means: pd.Series) -> tuple[list[str], dict[str, int]]:
    """The cases, and the places of the best, the median and the worst one."""
    names = list(means.index)
    return names, slices.choose_cases(means.to_numpy(dtype=np.float64), names)


def models(runs: Runs) -> Iterator[Drawn]:
    """The slices of `outlined_slices`, as every model sees them."""
    for view in runs.volume_views:
        variants = runs.models(view)
        if not variants:
            continue
        results = [runs.of(view, variant)[0] for variant in variants]
        rows, scores, classes = _rows(runs, view, results)
        names = [runs.cell(cell) for cell, _ in variants]
        yield Drawn(
            f"models-{view}",
            f"Every model: {runs.title(view)}",
            f"The same slices as every model under the {variants[0][1]} protocol sees them. Of the "
            "cases of the best, median and worst mean Dice (sound convention, over the organs) of "
            f"{results[0].run.name} the slice with the most organs, cropped to what is labelled. "
            "Below a picture the model and the mean Dice of its whole case, the best of a case in "
            f"bold.{_sides(results[0])}{runs.first_seed()} {runs.source(results)}",
            f"Slices of {len(rows)} CT cases, the true organs and those of {', '.join(names)}.",
            results,
            drawn_models.draw_slices(rows, names, scores, classes, runs.warning(results)),
        )


def _sides(result: Result) -> str:
    """The side of the patient's right; prepared files do not record it."""
    sides_known = result.data["source"] != "prepared"
    return " The patient's right is on the left." if sides_known else ""


def _medians(names: Sequence[str], dice: np.ndarray) -> str:
    defined = [column[~np.isnan(column)] for column in dice.T]
    medians = [float(np.median(values)) if values.size else np.nan for values in defined]
    return ", ".join(f"{n} {_dice(m)}" for n, m in zip(names, medians, strict=True))


def _by_case(runs: Runs, result: Result, column: str) -> pd.DataFrame:
    """Dice (cases, organs) of a run, nan if undefined; the organs in the classes' order."""
    table = runs.table(result, "per_case.csv", ["case", "organ", column])
    wide = table.pivot(index="case", columns="organ", values=column)
    return wide[list(result.data["classes"])]


def _mean(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """The mean over the seeds that define a figure."""
    stacked = pd.concat(tables).groupby(level=0).mean()
    return stacked.to_numpy(dtype=np.float64)


def _labels_of(
    runs: Runs, result: Result, labels: dict[str, Any], case: str, shape: tuple[int, ...]
) -> np.ndarray:
    path = runs.folder(result) / NAME
    if case not in labels or labels[case].shape != shape:
        raise InputError(
            f"{path}: holds no labels of {case} in the shape {shape}; {score_again(result.run)}"
        )
    return labels[case]


def _slice(
    manifest: dict[str, Any],
    case: str,
    rank: str,
    image: np.ndarray,
    truth: np.ndarray,
    predicted: Sequence[np.ndarray],
    scores: Sequence[float],
) -> slices.Slice:
    z = slices.choose_slice(np.asarray(truth))
    _, tall, wide = manifest["cases"][case].get("spacing") or (1.0, 1.0, 1.0)
    return slices.Slice(
        f"{rank}: {case}\nslice {z + 1} of {len(truth)}",
        np.asarray(image[z], dtype=np.float32),
        np.asarray(truth[z]),
        [labels[z] for labels in predicted],
        [f"mean Dice {_dice(score)}" for score in scores],
        tall / wide,
    )


def _dice(value: float) -> str:
    return "--" if np.isnan(value) else f"{value:.3f}"
