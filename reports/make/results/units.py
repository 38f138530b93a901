"""A run's scores on each test image or case: per_image.csv and per_case.csv.

An image has confusion counts in three comparisons (`vmunet.evaluation.images`), an image of several
classes has scores for each class, and a case of CT for each organ.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reports.make.files import read_rows, trusted
from reports.make.results.metrics import score_again
from vmunet.errors import InputError
from vmunet.evaluation.metrics import COUNTS
from vmunet.evaluation.samples import CaseSample, ImageSample, Sample

if TYPE_CHECKING:
    from pipeline.config.runs import Run

COMPARISONS = ("paper", "training_size", "native_size")
CLASS_SCORES = ("training_size_dice", "training_size_iou", "native_size_dice")
CLASS_TRUTH = ("native_size_tp", "native_size_fn")
CASE_SCORES = ("paper_dice", "paper_hd95_voxels", "dice", "hd95_mm", "nsd")
SAME_DATA = "train and evaluate both from the same data"
TP, FN = COUNTS.index("tp"), COUNTS.index("fn")


@dataclass(frozen=True)
class RunUnits:
    """One run's results by test unit.

    Attributes:
        path: the file of the results; `unit` is its column of ids.
        ids: of the images or cases, in the file's order.
        groups: whose each of them is, the column `patient`; empty if the file has none.
        classes: the organs, or the classes of images if there are several; otherwise empty.
        truth: (units, classes or 1), the number of pixels of the lesion, class or organ in the
            truth at its own size; the same for every model.
        values: counts (images, 4) by comparison; with classes scores (units, classes) by column,
            nan if undefined.
    """

    path: str
    unit: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    values: Mapping[str, npt.NDArray]

    def in_order_of(self, reference: "RunUnits") -> "RunUnits":
        """The same results, with the units in the order of another run's.

        Raises:
            InputError: the two do not have the same ids, classes and truth.
        """
        place = {name: i for i, name in enumerate(self.ids)}
        unmatched = sorted(set(reference.ids) ^ place.keys())
        if unmatched:
            holder = self.path if unmatched[0] in place else reference.path
            raise InputError(
                f"{self.path} has other {self.unit}s than {reference.path} ({unmatched[0]} is in "
                f"{holder} alone); {SAME_DATA}"
            )
        order = [place[name] for name in reference.ids]
        truth = self.truth[order]
        if self.classes != reference.classes or not np.array_equal(truth, reference.truth):
            raise InputError(
                f"{self.path} was measured against other masks than {reference.path} (the sizes of "
                f"the truth differ); {SAME_DATA}"
            )
        values = {name: table[order] for name, table in self.values.items()}
        groups = tuple(self.groups[i] for i in order) if self.groups else ()
        return replace(self, ids=reference.ids, groups=groups, truth=truth, values=values)


def sample(seeds: Sequence[RunUnits], name: str) -> Sample:
    """The comparison or column `name` of the runs of one cell, one for each seed."""
    values = np.stack([units.values[name] for units in seeds])
    classes = seeds[0].classes
    groups = seeds[0].groups
    if not classes:
        return ImageSample(values, groups)
    return CaseSample(values, classes, groups, math.inf if "hd95" in name else 1.0)


def read_units(root: Path, run: "Run", metrics: str, data: Mapping[str, Any]) -> RunUnits:
    """The per_image.csv or per_case.csv beside a run's metrics file.

    Args:
        root, metrics: the repository and the path of metrics.json in it.
        run: the run of the file.
        data: the block `data` of metrics.json; it counts test slices if the run is on volumes.

    Raises:
        InputError: the file is missing or does not hold the scores of the run.
    """
    volumes = "test_slices" in data
    path = Path(metrics).with_name("per_case.csv" if volumes else "per_image.csv").as_posix()
    classes = tuple(data.get("classes", ()))
    with trusted(path, "the scores of each test image or case", score_again(run)):
        rows = read_rows(root / path)
        if volumes:
            units = _scores(path, rows, "case", "organ", classes, CASE_SCORES, ("truth_voxels",))
        elif len(classes) > 1:
            units = _scores(path, rows, "id", "class", classes, CLASS_SCORES, CLASS_TRUTH)
        else:
            units = _counts(path, rows)
        if len(set(units.ids)) != data["n_test"]:
            raise ValueError(f"{len(set(units.ids))} of {data['n_test']} {units.unit}s")
    return units


def _counts(path: str, rows: Sequence[Mapping[str, str]]) -> RunUnits:
    """Confusion counts in every comparison, a row for each image."""
    columns = [f"{kind}_{count}" for kind in COMPARISONS for count in COUNTS]
    table = np.array([[int(row[column]) for column in columns] for row in rows])
    each = table.reshape(len(rows), len(COMPARISONS), len(COUNTS))
    values = {name: each[:, i] for i, name in enumerate(COMPARISONS)}
    truth = each[:, -1, [TP, FN]].sum(1, keepdims=True)
    ids = tuple(row["id"] for row in rows)
    return RunUnits(path, "id", ids, _groups(rows), (), truth, values)


def _groups(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(row["patient"] for row in rows) if "patient" in rows[0] else ()


def _scores(
    path: str,
    rows: Sequence[Mapping[str, str]],
    unit: str,
    label: str,
    classes: tuple[str, ...],
    columns: Sequence[str],
    truth: Sequence[str],
) -> RunUnits:
    """Scores in `columns`, a row for each unit and each of the classes, named by `label`.

    The sum of the columns `truth` is the truth's size; an empty field is an undefined score.
    """
    ids = tuple(dict.fromkeys(row[unit] for row in rows))
    by_place = {(row[unit], row[label]): row for row in rows}
    ordered = [by_place[name, one] for name in ids for one in classes]
    shape = (len(ids), len(classes))
    values = {
        column: np.array([float(row[column] or math.nan) for row in ordered]).reshape(shape)
        for column in columns
    }
    sizes = np.array([sum(int(row[column]) for column in truth) for row in ordered])
    groups = _groups([by_place[name, classes[0]] for name in ids])
    return RunUnits(path, unit, ids, groups, classes, sizes.reshape(shape), values)
