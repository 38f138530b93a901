"""How sure a score is, and whether two models differ: bootstrap intervals and permutation tests.

A `Sample` is what one model scored on its test units (images, or cases of CT), once for each
seed. Its figures are means over the seeds, its intervals speak of the choice of test units alone:
within a resample every seed, and every model that is compared, meets the same units.

The paired test asks whether it matters which of two models gave which result. Each draw swaps the
two models' results of some units, taken by the toss of a coin, and computes the difference of the
score itself anew; p is the share of draws whose difference is at least as large as the observed
one, in either direction. A model's result of a unit is its mean over the seeds, so that two
models may have different numbers of them; of pooled counts each is the part of all its pixels,
so that two models may have seen different sizes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from vmunet.errors import InputError
from vmunet.metrics import (
    COUNTS,
    Floats,
    averaged_scores,
    interval,
    mean_scores,
    pooled_scores,
    ratio,
    resampled_scores,
    resampling_weights,
    scores_of_sums,
    weighted_means,
)

RESAMPLES = 10_000
DRAWS = 10_000
EXACT_UNITS = 13  # up to here all 2**n swaps are fewer than DRAWS, and each is made once
PERMUTATION_SEED = 0
CHUNK = 1000  # draws at a time; bounds the memory, part of what the seed means
# Sums in another order differ by rounding: a difference this near the observed one is equal to it.
TIE = 1e-10
MEAN = ""  # the mean over the organs; no organ has an empty name

Verdict = Literal["inside", "above", "below"]


class Sample(Protocol):
    """What one model scored on the same test units with each of its seeds."""

    @property
    def units(self) -> int:
        """How many test units there are."""

    def scores(self) -> dict[str, float]:
        """Each score of all units, its mean over the seeds; nan where undefined."""

    def resampled(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        """The same of bootstrap resamples, (resamples,); samples of as many units share draws."""

    def parts(self) -> Floats:
        """(units, parts), the seeds' mean: what is summed over units before scores come of it."""

    def of_sums(self, sums: Floats) -> dict[str, Floats]:
        """The scores of sums of `parts`: (..., parts) gives (...) of every score."""


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
        each = [resampled_scores(counts, resamples) for counts in self.counts]
        return {name: np.mean([scores[name] for scores in each], axis=0) for name in each[0]}

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
        values: (seeds, cases, organs); nan where undefined, which leaves the value out. An organ
            that no case defines is left out of the organs' mean.
        organs: their names.
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


@dataclass(frozen=True)
class Paired:
    """A score of model b minus that of model a, on the same units.

    Attributes:
        difference: in the score's unit; nan where undefined.
        low, high: its 95% bootstrap interval over the units.
        p: two-sided, of the permutation test; nan where the difference is.
        n: how many units there are.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


def intervals(sample: Sample, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """The 95% bootstrap interval (low, high) of every score; nan where undefined throughout."""
    return {name: interval(values) for name, values in sample.resampled(resamples).items()}


def paired(a: Sample, b: Sample, resamples: int = RESAMPLES) -> dict[str, Paired]:
    """Every score of `b` minus that of `a`, with its interval and p.

    Args:
        a, b: of the same units in the same order.

    Raises:
        InputError: they have different numbers of units.
    """
    p = permutation_p(a, b)
    one, other = a.scores(), b.scores()
    first, second = a.resampled(resamples), b.resampled(resamples)
    return {
        name: Paired(
            other[name] - one[name], *interval(second[name] - first[name]), p[name], a.units
        )
        for name in p
    }


def permutation_p(a: Sample, b: Sample, draws: int = DRAWS) -> dict[str, float]:
    """Two-sided p of the paired permutation test, for every score.

    (1 + hits) / (1 + draws); of at most 13 units every swap is made once, and p is the share of
    hits among them, the observed result included. A draw that leaves the difference undefined
    counts as a hit.

    Args:
        a, b: of the same units in the same order; `permutation_p(b, a)` is the same.

    Returns:
        p in (0, 1]; nan where a score is undefined for one of the models.

    Raises:
        InputError: they have different numbers of units.
    """
    if a.units != b.units:
        raise InputError(f"a paired test of {a.units} and {b.units} units; expected the same ones")
    both = np.hstack([a.parts(), b.parts()])
    width = both.shape[1] // 2
    one, other = (a.of_sums(both.sum(0)[None, part]) for part in (np.s_[:width], np.s_[width:]))
    observed = {name: float(abs(other[name] - one[name])[0]) for name in one}
    scale = {name: float(abs(one[name])[0] + abs(other[name])[0]) for name in one}
    hits = dict.fromkeys(observed, 0)
    exact = a.units <= EXACT_UNITS
    for swapped in _every_swap(a.units) if exact else _random_swaps(a.units, draws):
        # No differences of sums: what is 0 for every unit stays 0 to the bit.
        moved, kept = swapped @ both, (1.0 - swapped) @ both
        first = a.of_sums(kept[:, :width] + moved[:, width:])
        second = a.of_sums(moved[:, :width] + kept[:, width:])
        for name, least in observed.items():
            smaller = abs(second[name] - first[name]) < least - TIE * scale[name]
            hits[name] += int(np.count_nonzero(~smaller))
    of, known = (2**a.units, 0) if exact else (1 + draws, 1)
    return {
        name: math.nan if math.isnan(observed[name]) else (known + found) / of
        for name, found in hits.items()
    }


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of p values for their number; None is no test and stays None.

    The chance that any of the true hypotheses has a corrected p of at most t is at most t.
    """
    tests = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - rank) * p))
        corrected[i] = highest
    return corrected


def verdict(low: float, high: float, published: float) -> Verdict:
    """Where a measured interval lies relative to a published value, all in one unit.

    `inside` where it holds the value, ends included, `above` where the whole interval is higher
    and `below` where it is lower, whether or not higher is better.
    """
    if low > published:
        return "above"
    return "below" if high < published else "inside"


def _averaged(counts: npt.NDArray) -> Floats:
    """(images, scores): what `mean_scores` averages."""
    return np.stack(list(averaged_scores(counts).values()), axis=1)


def _split(values: Floats) -> Floats:
    """(seeds, units, scores) as sums that give means: (units, 2 scores), values and how many."""
    defined = ~np.isnan(values)
    return np.hstack([np.where(defined, values, 0.0).mean(0), defined.mean(0)])


def _join(sums: Floats) -> Floats:
    """The means of sums of what `_split` gives."""
    half = sums.shape[-1] // 2
    return ratio(sums[..., :half], sums[..., half:], undefined=np.nan)


def _every_swap(units: int) -> Iterator[Floats]:
    """Each way to swap some of the units, once: (2**units, units) of 0 and 1."""
    yield (np.arange(2**units)[:, None] >> np.arange(units) & 1).astype(np.float64)


def _random_swaps(units: int, draws: int) -> Iterator[Floats]:
    """Chunks of (draws, units) of 0 and 1, 1 with probability 1/2."""
    generator = np.random.default_rng(PERMUTATION_SEED)
    for start in range(0, draws, CHUNK):
        drawn = generator.random((min(CHUNK, draws - start), units)) < 0.5
        yield drawn.astype(np.float64)
