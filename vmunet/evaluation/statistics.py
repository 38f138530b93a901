"""Bootstrap intervals of scores, and tests of whether two models or two methods differ.

An interval measures the effect of the choice of test units (images, or cases of CT) and no other.
In one resample, all seeds and all models that are compared have the same units. With fewer than 30
units the intervals are studentized (`vmunet.evaluation.few_units`).

With three seeds or more of each, two methods are compared (`vmunet.evaluation.runs`). With fewer,
two trained models are, and the result says nothing of a further training of either.

The test of two models asks whether it matters which of them gave which result. Each draw swaps the
models' results of some units, each with probability 1/2, and computes the difference of the score
again; p is the share of draws whose difference is at least as large as the observed one, in either
direction. A model's result on a unit is its mean over the seeds, so that two models may
have different numbers of seeds. Pooled counts are shares of all pixels, so that two models may
have different image sizes.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from vmunet.errors import InputError
from vmunet.evaluation.few_units import FEW, studentized
from vmunet.evaluation.metrics import Floats, interval
from vmunet.evaluation.runs import Paired, enough_seeds, methods
from vmunet.evaluation.samples import RESAMPLES, Sample

DRAWS = 10_000
EXACT_UNITS = 13  # with so few units, all 2**n swaps are fewer than DRAWS, and each is made once
PERMUTATION_SEED = 0
CHUNK = 1000  # draws at a time; limits the memory; the draws depend on it
# Sums in another order differ by rounding: a difference this close to the observed one equals it.
TIE = 1e-10


def intervals(sample: Sample, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """The 95% bootstrap interval (low, high) of every score; nan if no resample defines it."""
    if sample.units < FEW:
        return studentized([sample], resamples)
    return {name: interval(values) for name, values in sample.resampled(resamples).items()}


def paired(a: Sample, b: Sample, resamples: int = RESAMPLES) -> dict[str, Paired]:
    """Every score of `b` minus that of `a`, with its interval and p.

    Args:
        a, b: samples of the same units in the same order.

    Raises:
        InputError: they have different numbers of units.
    """
    _check_units(a, b)
    if enough_seeds(a, b):
        return methods(a, b)
    p, ends = permutation_p(a, b), _difference_intervals(a, b, resamples)
    one, other = a.scores(), b.scores()
    return {
        name: Paired(other[name] - one[name], *ends[name], p[name], a.units, methods=False)
        for name in p
    }


def difference_p(a: Sample, b: Sample) -> dict[str, float]:
    """The p of `paired` alone, which takes no bootstrap."""
    _check_units(a, b)
    if enough_seeds(a, b):
        return {name: of.p for name, of in methods(a, b).items()}
    return permutation_p(a, b)


def _difference_intervals(a: Sample, b: Sample, resamples: int) -> dict[str, tuple[float, float]]:
    if a.units < FEW:
        return studentized([a, b], resamples)
    first, second = a.resampled(resamples), b.resampled(resamples)
    return {name: interval(second[name] - first[name]) for name in first}


def _check_units(a: Sample, b: Sample) -> None:
    if a.units != b.units:
        raise InputError(f"a paired test of {a.units} and {b.units} units; expected the same ones")


def permutation_p(a: Sample, b: Sample, draws: int = DRAWS) -> dict[str, float]:
    """Two-sided p of the paired permutation test, for every score.

    p = (1 + hits) / (1 + draws). With at most 13 units every swap is made once, and p is the share
    of hits among them, the observed result included. A draw with an undefined difference counts
    as a hit.

    Args:
        a, b: samples of the same units in the same order; `permutation_p(b, a)` is the same.

    Returns:
        p in (0, 1]; nan if a score is undefined for one of the models.

    Raises:
        InputError: they have different numbers of units.
    """
    _check_units(a, b)
    both = np.hstack([a.parts(), b.parts()])
    width = both.shape[1] // 2
    one, other = (a.of_sums(both.sum(0)[None, part]) for part in (np.s_[:width], np.s_[width:]))
    observed = {name: float(abs(other[name] - one[name])[0]) for name in one}
    scale = {name: float(abs(one[name])[0] + abs(other[name])[0]) for name in one}
    hits = dict.fromkeys(observed, 0)
    exact = a.units <= EXACT_UNITS
    for swapped in _every_swap(a.units) if exact else _random_swaps(a.units, draws):
        # Sums, not differences of sums: a part that is 0 for every unit stays exactly 0.
        moved, kept = swapped @ both, (1.0 - swapped) @ both
        first = a.of_sums(kept[:, :width] + moved[:, width:])
        second = a.of_sums(moved[:, :width] + kept[:, width:])
        for name, least in observed.items():
            smaller = abs(second[name] - first[name]) < least - TIE * scale[name]
            hits[name] += int(np.count_nonzero(~smaller))
    swaps, unswapped = (2**a.units, 0) if exact else (1 + draws, 1)
    return {
        name: math.nan if math.isnan(observed[name]) else (unswapped + count) / swaps
        for name, count in hits.items()
    }


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of p values for their number; None means no test and stays None.

    The chance that any of the true hypotheses has a corrected p of at most t is at most t.
    """
    tests = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - rank) * p))
        corrected[i] = highest
    return corrected


def _every_swap(units: int) -> Iterator[Floats]:
    """Each way to swap some of the units, once: (2**units, units) of 0 and 1."""
    yield (np.arange(2**units)[:, None] >> np.arange(units) & 1).astype(np.float64)


def _random_swaps(units: int, draws: int) -> Iterator[Floats]:
    """Chunks of (draws, units) of 0 and 1, 1 with probability 1/2."""
    generator = np.random.default_rng(PERMUTATION_SEED)
    for start in range(0, draws, CHUNK):
        drawn = generator.random((min(CHUNK, draws - start), units)) < 0.5
        yield drawn.astype(np.float64)
