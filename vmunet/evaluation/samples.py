"""A model's results on its test units (images, or cases of CT), once for each of its seeds.

Scores are means over the seeds. A sample gives its scores, the scores of bootstrap resamples of
its units, and the sums over units from which the scores follow, for tests that exchange units.
"""

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

    def scores(self) -> dict[str, float]:
        """Each score of all units, its mean over the seeds; nan if undefined."""

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        """The scores of bootstrap resamples, (resamples,); equally large samples share draws."""

    def parts(self) -> Floats:
        """(units, parts), the mean over the seeds: the scores follow from sums of it over units."""

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        """The scores that follow from sums of `parts`: (..., parts) gives (...) of every score."""


@dataclass(frozen=True)
class ImageSample:
    """Confusion counts; the scores are those of `pooled_scores` and `mean_scores`.

    Attributes:
        counts: (seeds, images, 4), at least one pixel in each image.
    """

    counts: npt.NDArray

    def __post_init__(self) -> None:
        shape = self.counts.shape
        if len(shape) != 3 or shape[2] != len(COUNTS) or 0 in shape:
            raise InputError(
                f"counts of images are {shape}; expected (seeds, images, 4), at least one of each"
            )
        if not (self.counts >= 0).all() or not self.counts.sum(-1).all():  # the first fails on nan
            raise InputError("counts of images: some are negative or nan, or an image has no pixel")

    @property
    def units(self) -> int:
        return self.counts.shape[1]

    def scores(self) -> dict[str, float]:
        each = [pooled_scores(counts) | mean_scores(counts) for counts in self.counts]
        return {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        chunks = []
        for weights in resampling_weights(self.units, resamples):
            each = [scores_of_weights(counts, weights) for counts in self.counts]
            chunks.append(
                {name: np.mean([scores[name] for scores in each], axis=0) for name in each[0]}
            )
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def parts(self) -> Floats:
        shares = self.counts.sum(0) / self.counts.sum()
        return np.hstack([shares, _split(np.stack([_averaged(c) for c in self.counts]))])

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        names = averaged_scores(self.counts[0]).keys()
        means = np.moveaxis(_join(sums[..., len(COUNTS) :]), -1, 0)
        return scores_of_sums(sums[..., : len(COUNTS)]) | dict(zip(names, means, strict=True))


@dataclass(frozen=True)
class CaseSample:
    """Values per case and organ: each organ's mean over the cases, and `MEAN` over the organs.

    Attributes:
        values: (seeds, cases, organs); nan if undefined, which leaves the value out. An organ that
            no case defines is left out of the organs' mean.
        organs: the organs' names.
    """

    values: Floats
    organs: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) != 3 or shape[2] != len(self.organs) or 0 in shape:
            raise InputError(
                f"values of cases are {shape}; expected (seeds, cases, {len(self.organs)} organs), "
                "at least one of each"
            )

    @property
    def units(self) -> int:
        return self.values.shape[1]

    def scores(self) -> dict[str, float]:
        once = np.ones((1, self.units))
        each = [self._named(weighted_means(values, once)) for values in self.values]
        return {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        chunks = []
        for weights in resampling_weights(self.units, resamples):
            each = [weighted_means(values, weights) for values in self.values]
            chunks.append([self._named(means) for means in each])
        return {
            name: np.concatenate([np.mean([s[name] for s in seeds], axis=0) for seeds in chunks])
            for name in (MEAN, *self.organs)
        }

    def parts(self) -> Floats:
        return _split(self.values)

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        return self._named(_join(sums))

    def _named(self, means: Floats) -> dict[str, Floats]:
        """(resamples, organs) by organ, each (resamples,), and their mean."""
        overall = weighted_means(means.T, np.ones((1, len(self.organs))))[0]
        return {MEAN: overall, **dict(zip(self.organs, means.T, strict=True))}


def _averaged(counts: npt.NDArray) -> Floats:
    """(images, scores): the scores that `mean_scores` averages."""
    return np.stack(list(averaged_scores(counts).values()), axis=1)


def _split(values: Floats) -> Floats:
    """(seeds, units, scores) as sums that give means: (units, 2 scores), values and counts."""
    defined = ~np.isnan(values)
    return np.hstack([np.where(defined, values, 0.0).mean(0), defined.mean(0)])


def _join(sums: Floats) -> Floats:
    """The means that follow from sums of `_split`'s result."""
    half = sums.shape[-1] // 2
    return ratio(sums[..., :half], sums[..., half:], undefined=np.nan)
