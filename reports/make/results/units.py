"""What a run scored on each test image or case: per_image.csv and per_case.csv, read and checked.

An image has confusion counts in three comparisons (`vmunet.evaluation.images`), an image of several
classes has scores for each class, and a case of CT for each organ.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reports.make.results.metrics import score_again
from vmunet.errors import InputError
from vmunet.evaluation.metrics import COUNTS
from vmunet.evaluation.samples import MEAN, CaseSample, ImageSample, Sample

if TYPE_CHECKING:
    from pipeline.config.runs import Run

COMPARISONS = ("paper", "training_size", "native_size")
CLASS_SCORES = ("training_size_dice", "training_size_iou", "native_size_dice")
CLASS_TRUTH = ("native_size_tp", "native_size_fn")
CASE_SCORES = ("paper_dice", "paper_hd95_voxels", "dice", "hd95_mm", "nsd")
SAME_DATA = "train and evaluate both from the same data"
TP, FN = COUNTS.index("tp"), COUNTS.index("fn")
FAR = 1e-9  # a score that differs by more from the counts' is another evaluation's


@dataclass(frozen=True)
class RunUnits:
    """One run's results by test unit.

    Attributes:
        path: the file they are from; `unit` its column of ids.
        ids: of the images or cases, in the file's order.
        classes: the organs, or the classes of images where there are several; else empty.
        truth: (units, classes or 1), the lesion's, class's or organ's pixels in the truth at its
            own size, the same for every model.
        values: by comparison counts (images, 4); with classes by column (units, classes), nan
            where undefined.
    """

    path: str
    unit: str
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    values: Mapping[str, npt.NDArray]

    def in_order_of(self, reference: "RunUnits") -> "RunUnits":
        """The same with its units in the order of another run's.

        Raises:
            InputError: the two do not have the same ids, classes and truth.
        """
        place = {name: i for i, name in enumerate(self.ids)}
        other = sorted(set(reference.ids) ^ place.keys())
        if other:
            where = self.path if other[0] in place else reference.path
            raise InputError(
                f"{self.path} has other {self.unit}s than {reference.path} ({other[0]} is in "
                f"{where} alone); {SAME_DATA}"
            )
        order = [place[name] for name in reference.ids]
        truth = self.truth[order]
        if self.classes != reference.classes or not np.array_equal(truth, reference.truth):
            raise InputError(
                f"{self.path} was measured against other masks than {reference.path} (the sizes of "
                f"the truth differ); {SAME_DATA}"
            )
        values = {name: table[order] for name, table in self.values.items()}
        return replace(self, ids=reference.ids, truth=truth, values=values)


def sample(seeds: Sequence[RunUnits], name: str) -> Sample:
    """The comparison or column `name` of the runs of one cell, one for each seed."""
    values = np.stack([units.values[name] for units in seeds])
    classes = seeds[0].classes
    return CaseSample(values, classes) if classes else ImageSample(values)


def read_units(
    root: Path, run: "Run", metrics: str, data: Mapping[str, Any], said: Mapping[str, Any]
) -> RunUnits:
    """The per_image.csv or per_case.csv beside a run's metrics file.

    Args:
        root, metrics: the repository and the path of metrics.json in it.
        run: whose it is.
        data: the block of this name in metrics.json, which tells volumes by their test slices.
        said: scores of metrics.json that have to follow from the file: of images those of the
            paper set, of several classes `mean_dice` at native size, of volumes `dsc`, `hd95`
            and the organs' Dice of the paper set.

    Raises:
        InputError: the file is missing, lacks a column or a row, holds a value that is none, or
            gives other scores.
    """
    volumes = "test_slices" in data
    file = _File(
        path=(Path(metrics).parent / ("per_case.csv" if volumes else "per_image.csv")).as_posix(),
        unit="case" if volumes else "id",
        again=score_again(run),
    )
    classes = tuple(data.get("classes", ()))
    if volumes:
        units = file.values(root, "organ", classes, CASE_SCORES, ["truth_voxels"])
        dice = sample([units], "paper_dice").scores()
        found = {**dice, "dsc": dice[MEAN]}
        found["hd95"] = sample([units], "paper_hd95_voxels").scores()[MEAN]
    elif len(classes) > 1:
        units = file.values(root, "class", classes, CLASS_SCORES, CLASS_TRUTH)
        found = {"mean_dice": sample([units], "native_size_dice").scores()[MEAN]}
    else:
        units = file.counts(root)
        found = sample([units], "paper").scores()
    if (tested := data["n_test"]) != len(units.ids):
        raise file.wrong(
            f"has {len(units.ids)} {file.unit}s, and {metrics} tells of {tested} (data.n_test)"
        )
    for name in found.keys() & said.keys():
        if not abs(found[name] - said[name]) <= FAR:
            raise file.wrong(
                f"gives {name} {found[name]:.12g}, and {metrics} says "
                f"{said[name]:.12g}: they are of different evaluations"
            )
    return units


@dataclass(frozen=True)
class _File:
    """A CSV file whose column `unit` names images or cases; `again` tells how to make it anew."""

    path: str
    unit: str
    again: str

    def wrong(self, what: str) -> InputError:
        return InputError(f"{self.path} {what}; {self.again}")

    def counts(self, root: Path) -> RunUnits:
        """Confusion counts in every comparison, a row for each image."""
        columns = [f"{kind}_{count}" for kind in COMPARISONS for count in COUNTS]
        rows = self._rows(root, (self.unit, *columns))
        ids = tuple(row[self.unit] for row in rows)
        if len(set(ids)) < len(ids):
            raise self.wrong(f"has {len(ids) - len(set(ids))} ids more than once")
        table = np.array([[self._count(row, column) for column in columns] for row in rows])
        each = table.reshape(len(ids), len(COMPARISONS), len(COUNTS))
        if not each.sum(-1).all():
            raise self.wrong("has an image without pixels: four counts that are 0")
        values = {name: each[:, i] for i, name in enumerate(COMPARISONS)}
        truth = each[:, -1, [TP, FN]].sum(1, keepdims=True)
        return RunUnits(self.path, self.unit, ids, (), truth, values)

    def values(
        self,
        root: Path,
        label: str,
        classes: tuple[str, ...],
        columns: Sequence[str],
        truth: Sequence[str],
    ) -> RunUnits:
        """Scores in `columns`, a row for each unit and each of the classes, named by `label`.

        The sum of the columns `truth` is the truth's size.
        """
        rows = self._rows(root, (self.unit, label, *columns, *truth))
        ids = tuple(dict.fromkeys(row[self.unit] for row in rows))
        wanted = [(name, one) for name in ids for one in classes]
        found = {(row[self.unit], row[label]): row for row in rows}
        if found.keys() != set(wanted) or len(rows) != len(wanted):
            raise self.wrong(
                f"has {len(rows)} rows for {len(ids)} {self.unit}s; expected one for each of them "
                f"and each {label} ({', '.join(classes)})"
            )
        values = {
            column: np.array([self._score(found[key], column) for key in wanted]).reshape(
                len(ids), len(classes)
            )
            for column in columns
        }
        counts = [sum(self._count(found[key], column) for column in truth) for key in wanted]
        sizes = np.array(counts).reshape(len(ids), len(classes))
        return RunUnits(self.path, self.unit, ids, classes, sizes, values)

    def _rows(self, root: Path, columns: Sequence[str]) -> list[dict[str, str]]:
        try:
            with (root / self.path).open(newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
        except FileNotFoundError:
            raise self.wrong("is not there beside metrics.json") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise self.wrong(f"is no CSV file ({error})") from None
        if not rows:
            raise self.wrong("has no rows")
        for column in columns:
            if any(row.get(column) is None for row in rows):  # a row cut short has None
                raise self.wrong(f"lacks column '{column}'")
        return rows

    def _count(self, row: Mapping[str, str], column: str) -> int:
        """A number of pixels."""
        text = row[column]
        if not (text.isascii() and text.isdecimal()):
            raise self.wrong(
                f"has {column} {text!r} of {row[self.unit]}, not a whole number of at least 0"
            )
        return int(text)

    def _score(self, row: Mapping[str, str], column: str) -> float:
        """A number of at least 0; nan where the field is empty: undefined."""
        text = row[column]
        try:
            value = float(text) if text else math.nan
        except ValueError:
            value = math.inf
        if text and not 0 <= value < math.inf:
            raise self.wrong(
                f"has {column} {text!r} of {row[self.unit]}, not a number of at least 0, or empty"
            )
        return value
