"""A model's results on its test units, once for each of its seeds.

A unit is an image or a case of CT or, where `groups` says which of them belong together (the images
of one patient), such a group: what belongs together is drawn, swapped and left out together.

Scores are means over the seeds. A sample gives its scores, the scores of bootstrap resamples of
its units, and the sums over units from which the scores follow, for tests that exchange units.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmunet.errors import InputError
from vmunet.evaluation.metrics import (
    COUNTS,
    Floats,
    averaged_scores,
    mean_scores,
    pooled_scores,
    ratio,
    resampling_weights,
    scores_of_sums,
    scores_of_weights,
    weighted_means,
)

RESAMPLES = 10_000
MEAN = ""  # the mean over the organs; no organ has an empty name


class Sample(Protocol):
    """One model's results on the same test units with each of its seeds."""

    @property
    def units(self) -> int:
        """The number of test units."""

    @property
    def seeds(self) -> int:
        """The number of trained models."""

    @property
    def highest(self) -> float:
        """The highest value that a score can have; the lowest is 0."""

    def of_seeds(self) -> dict[str, Floats]:
        """Each score of all units with each seed, (seeds,); nan if undefined."""

    def scores(self) -> dict[str, float]:
        """Each score of all units, its mean over the seeds; nan if undefined."""

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        """The scores of bootstrap resamples, (resamples,); equally large samples share draws."""

    def parts(self) -> Floats:
        """(units, parts), the mean over the seeds: the scores follow from sums of it over units."""

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        """The scores that follow from sums of `parts`: (..., parts) gives (...) of every score."""


@dataclass(frozen=True)
class _Units:
    """The units of a table (seeds, rows, ...), one for each row or for each of `groups`."""

    rows: int
    index: npt.NDArray[np.intp] | None

    @classmethod
    def of(cls, rows: int, groups: Sequence[str]) -> "_Units":
        """Raises InputError if there are groups, but not one for each row."""
        if not groups:
            return cls(rows, None)
        if len(groups) != rows:
            raise InputError(f"{len(groups)} groups of {rows} images or cases; expected one each")
        return cls(rows, np.unique(groups, return_inverse=True)[1])

    @property
    def n(self) -> int:
        return self.rows if self.index is None else int(self.index.max()) + 1

    def weights(self, resamples: int) -> Iterator[Floats]:
        """How often each row counts in resamples of the units, in chunks (resamples, rows)."""
        for drawn in resampling_weights(self.n, resamples):
            yield drawn if self.index is None else drawn[:, self.index]

    def sums(self, parts: Floats) -> Floats:
        """(rows, parts) summed over each unit's rows: (units, parts)."""
        if self.index is None:
            return parts
        total = np.zeros((self.n, parts.shape[1]))
        np.add.at(total, self.index, parts)
        return total


@dataclass(frozen=True)
class ImageSample:
    """Confusion counts; the scores are those of `pooled_scores` and `mean_scores`.

    Attributes:
        counts: (seeds, images, 4), at least one pixel in each image.
        groups: whose each image is, such as a patient's name; empty if each is a unit of its own.
        absent: the scores of a class that neither truth nor prediction holds, as of both functions.
        highest: see `Sample`.
    """

    counts: npt.NDArray
    groups: Sequence[str] = ()
    absent: float | None = None
    highest: float = 1.0

    def __post_init__(self) -> None:
        shape = self.counts.shape
        if len(shape) != 3 or shape[2] != len(COUNTS) or 0 in shape:
            raise InputError(
                f"counts of images are {shape}; expected (seeds, images, 4), at least one of each"
            )
        if not (self.counts >= 0).all() or not self.counts.sum(-1).all():  # the first fails on nan
            raise InputError("counts of images: some are negative or nan, or an image has no pixel")
        self._units()

    def _units(self) -> _Units:
        return _Units.of(self.counts.shape[1], self.groups)

    @property
    def units(self) -> int:
        return self._units().n

    @property
    def seeds(self) -> int:
        return len(self.counts)

    def of_seeds(self) -> dict[str, Floats]:
        each = [
            pooled_scores(counts, self.absent) | mean_scores(counts, self.absent)
            for counts in self.counts
        ]
        return {name: np.array([scores[name] for scores in each]) for name in each[0]}

    def scores(self) -> dict[str, float]:
        return _means(self.of_seeds())

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        chunks = []
        for weights in self._units().weights(resamples):
            each = [scores_of_weights(counts, weights, self.absent) for counts in self.counts]
            chunks.append(
                {name: np.mean([scores[name] for scores in each], axis=0) for name in each[0]}
            )
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def parts(self) -> Floats:
        shares = self.counts.sum(0) / self.counts.sum()
        columns = [list(averaged_scores(counts, self.absent).values()) for counts in self.counts]
        averaged = _split(np.moveaxis(np.array(columns), 1, -1))
        return self._units().sums(np.hstack([shares, averaged]))

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        names = averaged_scores(self.counts[0]).keys()
        means = np.moveaxis(_join(sums[..., len(COUNTS) :]), -1, 0)
        pooled = scores_of_sums(sums[..., : len(COUNTS)], self.absent)
        return pooled | dict(zip(names, means, strict=True))


@dataclass(frozen=True)
class ClassSample:
    """The same images in several classes: the mean of the classes' scores.

    Attributes:
        classes: one sample for each class, of the same seeds, images and groups. A class whose
            score is undefined is left out of the mean.
        highest: see `Sample`.
    """

    classes: Sequence[ImageSample]
    highest: float = 1.0

    @property
    def units(self) -> int:
        return self.classes[0].units

    @property
    def seeds(self) -> int:
        return self.classes[0].seeds

    def of_seeds(self) -> dict[str, Floats]:
        return _over_classes([of.of_seeds() for of in self.classes])

    def scores(self) -> dict[str, float]:
        return _means(self.of_seeds())

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        return _over_classes([of.resampled(resamples) for of in self.classes])

    def parts(self) -> Floats:
        return np.hstack([of.parts() for of in self.classes])

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        each = np.split(sums, len(self.classes), axis=-1)
        return _over_classes([of.of_sums(s) for of, s in zip(self.classes, each, strict=True)])


@dataclass(frozen=True)
class CaseSample:
    """Values per case and organ: each organ's mean over the cases, and `MEAN` over the organs.

    Attributes:
        values: (seeds, cases, organs); nan if undefined, which leaves the value out. An organ that
            no case defines is left out of the organs' mean.
        organs: the organs' names.
        groups: as of `ImageSample`, for each case.
        highest: see `Sample`; infinite for distances.
    """

    values: Floats
    organs: tuple[str, ...]
    groups: Sequence[str] = ()
    highest: float = 1.0

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) != 3 or shape[2] != len(self.organs) or 0 in shape:
            raise InputError(
                f"values of cases are {shape}; expected (seeds, cases, {len(self.organs)} organs), "
                "at least one of each"
            )
        self._units()

    def _units(self) -> _Units:
        return _Units.of(self.values.shape[1], self.groups)

    @property
    def units(self) -> int:
        return self._units().n

    @property
    def seeds(self) -> int:
        return len(self.values)

    def of_seeds(self) -> dict[str, Floats]:
        once = np.ones((1, self.values.shape[1]))
        each = [self._named(weighted_means(values, once)) for values in self.values]
        return {name: np.concatenate([scores[name] for scores in each]) for name in each[0]}

    def scores(self) -> dict[str, float]:
        return _means(self.of_seeds())

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        chunks = []
        for weights in self._units().weights(resamples):
            each = [weighted_means(values, weights) for values in self.values]
            chunks.append([self._named(means) for means in each])
        return {
            name: np.concatenate([np.mean([s[name] for s in seeds], axis=0) for seeds in chunks])
            for name in (MEAN, *self.organs)
        }

    def parts(self) -> Floats:
        return self._units().sums(_split(self.values))

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        return self._named(_join(sums))

    def _named(self, means: Floats) -> dict[str, Floats]:
        """(..., organs) by organ, each (...), and their mean."""
        by_organ = dict(zip(self.organs, np.moveaxis(means, -1, 0), strict=True))
        return {MEAN: mean_defined(means)} | by_organ


def _means(of_seeds: Mapping[str, Floats]) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in of_seeds.items()}


def mean_defined(values: Floats) -> Floats:
    """The mean over the last axis of the values that are not nan; nan if all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1), undefined=np.nan)


def _over_classes(each: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """The mean of each score over the classes that define it."""
    return {
        name: mean_defined(np.stack([of_class[name] for of_class in each], axis=-1))
        for name in each[0]
    }


def _split(values: Floats) -> Floats:
    """(seeds, units, scores) as sums that give means: (units, 2 scores), values and counts."""
    defined = ~np.isnan(values)
    return np.hstack([np.where(defined, values, 0.0).mean(0), defined.mean(0)])


def _join(sums: Floats) -> Floats:
    """The means that follow from sums of `_split`'s result."""
    half = sums.shape[-1] // 2
    return ratio(sums[..., :half], sums[..., half:], undefined=np.nan)
