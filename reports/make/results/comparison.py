"""Two cells on the same test images or cases: their scores, and how sure the differences are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.make.files import trusted
from reports.make.results.metrics import (
    SCORES,
    SOURCES,
    VOLUME_SOURCES,
    check_epochs,
    load_metrics,
    metrics_path,
    recorded_epochs,
    score_again,
)
from reports.make.results.units import RunUnits, read_units, sample
from vmunet.evaluation.metrics import Floats, per_image_scores
from vmunet.evaluation.samples import MEAN, mean_defined
from vmunet.evaluation.statistics import holm, paired

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.runs import Run

OWN = "data of your own"
# The printed lines of images: the line's label, the comparison and the score's name.
IMAGE_LINES = (
    ("pooled mIoU", "paper", "miou"),
    ("pooled DSC", "paper", "dsc"),
    ("mean Dice, training size", "training_size", "mean_dice"),
    ("mean IoU, training size", "training_size", "mean_iou"),
    ("mean Dice, native size", "native_size", "mean_dice"),
)


@dataclass(frozen=True)
class ScoreLine:
    """One score of both models, in percent or, of distances, in voxels; nan if undefined.

    Attributes:
        label: the score in words.
        lower: whether a lower score is the better one.
        a, b: the two models' scores, means over their seeds.
        difference, low, high: b minus a with its paired 95% interval.
        p: two-sided, corrected for the lines of the comparison; None if undefined.
        methods: whether interval and p compare methods, over the seeds, and not two trained models.
    """

    label: str
    lower: bool
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float | None
    methods: bool

    @property
    def better(self) -> str:
        """The model with the better score: `a`, `b`, or '' if the scores are equal."""
        if not self.difference:
            return ""
        return "a" if (self.difference > 0) == self.lower else "b"


@dataclass(frozen=True)
class Comparison:
    """Two models on one view.

    Attributes:
        noun: a test unit's name, image or case.
        source: the origin of the data, in words.
        units: the number of test units.
        lines: the scores.
        a_ahead, b_ahead: (id, Dice of a, Dice of b), in percent, of the units on which a is better,
            and of those on which b is better, the largest differences first. Dice is at native
            size; with several classes or organs it is their mean.
    """

    noun: str
    source: str
    units: int
    lines: list[ScoreLine]
    a_ahead: list[tuple[str, float, float]]
    b_ahead: list[tuple[str, float, float]]


def compare(
    root: Path, params: "Params", a_runs: Sequence["Run"], b_runs: Sequence["Run"]
) -> Comparison:
    """Compare the runs of two cells, each one run or several seeds, on the same test images.

    Raises:
        InputError: a run's files are missing, foreign, or of other test images, or seeds of a cell
            were trained for different epochs.
    """
    first: RunUnits | None = None
    sides: list[list[RunUnits]] = []
    data: Mapping[str, Any] = {}
    trainings: list[tuple[Run, str, int | None]] = []
    for runs in (a_runs, b_runs):
        sides.append([])
        for run in runs:
            units, data, epochs = _read(root, params, run)
            trainings.append((run, metrics_path(run, params), epochs))
            first = first or units
            sides[-1].append(units.in_order_of(first))
    check_epochs(trainings)
    a, b = sides
    volumes = "test_slices" in data
    lines = _lines(a, b, volumes)
    p_values = holm([line.p for line in lines])
    ids, (dice_a, dice_b) = a[0].ids, (_dice(units, volumes) for units in sides)
    return Comparison(
        noun="case" if volumes else "image",
        source=(VOLUME_SOURCES if volumes else SOURCES).get(data["source"], OWN),
        units=len(ids),
        lines=[replace(line, p=p) for line, p in zip(lines, p_values, strict=True)],
        a_ahead=_ahead(ids, dice_a, dice_b, dice_a - dice_b),
        b_ahead=_ahead(ids, dice_a, dice_b, dice_b - dice_a),
    )


def _read(
    root: Path, params: "Params", run: "Run"
) -> tuple[RunUnits, Mapping[str, Any], int | None]:
    """The run's results by unit, the block `data` of its metrics file, and its epochs."""
    content, path = load_metrics(root, run, params), metrics_path(run, params)
    with trusted(path, SCORES, score_again(run)):
        data = content["data"]
        data["source"], data["n_test"]
        epochs = recorded_epochs(content)
    return read_units(root, run, path, data), data, epochs


def _lines(a: Sequence[RunUnits], b: Sequence[RunUnits], volumes: bool) -> list[ScoreLine]:
    """The scores; p is not corrected yet."""
    classes = a[0].classes
    score_names: Sequence[tuple[str, str, str]]
    if volumes:
        score_names = (
            ("DSC", "paper_dice", MEAN),
            ("HD95 (voxels)", "paper_hd95_voxels", MEAN),
            *((f"DSC, {name.replace('-', ' ')}", "paper_dice", name) for name in classes),
        )
    elif classes:
        score_names = (
            ("mean Dice, training size", "training_size_dice", MEAN),
            ("mean IoU, training size", "training_size_iou", MEAN),
            ("mean Dice, native size", "native_size_dice", MEAN),
            *((f"Dice, {name}, native size", "native_size_dice", name) for name in classes),
        )
    else:
        score_names = IMAGE_LINES
    samples = {key: (sample(a, key), sample(b, key)) for _, key, _ in score_names}
    scores = {key: (first.scores(), second.scores()) for key, (first, second) in samples.items()}
    differences = {key: paired(*pair) for key, pair in samples.items()}
    lines = []
    for label, key, name in score_names:
        pair, lower = differences[key][name], "hd95" in key
        scale = 1 if lower else 100
        first, second = (scale * by_name[name] for by_name in scores[key])
        difference, low, high = (scale * v for v in (pair.difference, pair.low, pair.high))
        p = None if np.isnan(pair.p) else pair.p
        methods = pair.methods
        lines.append(ScoreLine(label, lower, first, second, difference, low, high, p, methods))
    return lines


def _dice(seeds: Sequence[RunUnits], volumes: bool) -> Floats:
    """Each unit's Dice, the seeds' mean, in percent: (units,)."""
    if not seeds[0].classes:
        each = [per_image_scores(units.values["native_size"])["dice"] for units in seeds]
    else:
        column = "paper_dice" if volumes else "native_size_dice"
        # 1 for an image that holds none of the classes, in truth and prediction.
        each = [np.nan_to_num(mean_defined(units.values[column]), nan=1.0) for units in seeds]
    return 100 * np.mean(each, axis=0)


def _ahead(
    ids: Sequence[str], a: Floats, b: Floats, lead: Floats, most: int = 3
) -> list[tuple[str, float, float]]:
    """The units with the largest positive lead, the largest first."""
    order = [i for i in np.argsort(-lead, kind="stable")[:most] if lead[i] > 0]
    return [(ids[i], float(a[i]), float(b[i])) for i in order]
