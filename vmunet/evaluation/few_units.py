"""Intervals from few test units: the studentized bootstrap ("bootstrap-t").

A percentile interval of twelve volumes holds the true score in 91% of cases and not in 95%, because
so few units vary too little among their own resamples. Here each resample is measured in its own
standard error, a jackknife's, so the interval widens as a t interval does, and follows a skewed
score (Efron and Tibshirani: An Introduction to the Bootstrap, 1993, chapter 12). `python -m
benchmarks.coverage` counts how often it holds the truth, beside BCa and percentile intervals.

Fewer than five units have no interval, because too few of their resamples differ. Nor has a score
whose interval would be the whole range of the score, as where one unit of many fails: it says
nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vmunet.evaluation.metrics import Floats, interval, resampling_weights
from vmunet.evaluation.samples import Sample

FEW = 30  # units: with fewer, intervals are studentized
LEAST = 5  # units: with fewer, there are no intervals
# Sums without a unit that hold nothing else differ from 0 by rounding. A pixel's share is larger.
NOTHING = 1e-12
NO_INTERVAL = (np.nan, np.nan)


def studentized(samples: Sequence[Sample], resamples: int) -> dict[str, tuple[float, float]]:
    """The 95% interval of each score of one sample, or of the second of two minus the first.

    Args:
        samples: one sample, or two of the same units in the same order.

    Returns:
        (low, high), cut where scores end; both the estimate itself if the units do not vary; nan
        if the score is undefined, if there are fewer than `LEAST` units, and if the interval would
        be all that a score can be.
    """
    parts = [sample.parts() for sample in samples]
    estimates = _last_minus_first([sample.scores() for sample in samples])
    if samples[0].units < LEAST:
        return dict.fromkeys(estimates, NO_INTERVAL)
    whole = _scores(samples, [each.sum(0) for each in parts])
    errors = {name: np.sqrt(variance) for name, variance in jackknife_variance(samples).items()}
    deviations: dict[str, list[Floats]] = {name: [] for name in whole}
    for weights in resampling_weights(samples[0].units, resamples):
        sums = [weights @ each for each in parts]
        scores, left_out = _scores(samples, sums), _left_out(samples, parts, sums)
        for name, values in scores.items():
            error = np.sqrt(_variance(left_out[name], weights))
            with np.errstate(divide="ignore", invalid="ignore"):
                deviations[name].append((values - whole[name]) / error)
    top = samples[0].highest
    bottom = 0.0 if len(samples) == 1 else -top
    intervals = {}
    for name, estimate in estimates.items():
        low, high = _interval(float(estimate), errors[name], np.concatenate(deviations[name]))
        whole_range = low <= bottom and high >= top
        intervals[name] = NO_INTERVAL if whole_range else (max(low, bottom), min(high, top))
    return intervals


def jackknife_variance(samples: Sequence[Sample]) -> dict[str, float]:
    """The variance of each score (as `studentized` means it) over the choice of the units.

    Returns:
        the jackknife's estimate; nan if the score is undefined without some unit, as for one unit.
    """
    parts = [sample.parts() for sample in samples]
    once = np.ones((1, samples[0].units))
    left_out = _left_out(samples, parts, [each.sum(0)[None] for each in parts])
    return {name: float(_variance(values, once)[0]) for name, values in left_out.items()}


def _interval(estimate: float, error: float, deviations: Floats) -> tuple[float, float]:
    finite = deviations[np.isfinite(deviations)]
    if np.isnan(estimate) or np.isnan(error):
        return NO_INTERVAL
    if not error or not finite.size:
        return estimate, estimate
    low, high = interval(finite)
    return estimate - high * error, estimate - low * error


def _left_out(
    samples: Sequence[Sample], parts: Sequence[Floats], sums: Sequence[Floats]
) -> dict[str, Floats]:
    """The scores of resamples without one of each unit: (resamples, units)."""
    rest = [total[:, None, :] - each for total, each in zip(sums, parts, strict=True)]
    return _scores(samples, [np.where(abs(one) < NOTHING, 0.0, one) for one in rest])


def _variance(left_out: Floats, weights: Floats) -> Floats:
    """The jackknife's variance from scores without each unit, which counts `weights` times."""
    n = weights.shape[1]
    left_out = np.where(weights > 0, left_out, 0.0)  # without a unit that is not there: nonsense
    mean = np.einsum("ij,ij->i", weights, left_out) / n
    deviations = (left_out - mean[:, None]) ** 2
    return (n - 1) / n * np.einsum("ij,ij->i", weights, deviations)


def _scores(samples: Sequence[Sample], sums: Sequence[Floats]) -> dict[str, Floats]:
    each = [sample.of_sums(of_sample) for sample, of_sample in zip(samples, sums, strict=True)]
    return _last_minus_first(each)


def _last_minus_first(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = scores[-1]
    return dict(last) if len(scores) == 1 else {k: last[k] - scores[0][k] for k in last}
