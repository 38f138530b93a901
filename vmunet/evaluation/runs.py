"""What several trainings of one method tell: of two methods, of a new run, of a published value.

Images say how much a score depends on the choice of test images. How much it depends on the
training (its random numbers) only other seeds say. So a test of two methods needs several seeds of
each: two seeds of one method differ by more than their images explain, and a test by images alone
calls every second such pair different.

The test here is Welch's t test on the seeds' scores with the images' variance added to its own;
the degrees of freedom are Welch and Satterthwaite's. `python -m benchmarks.methods` counts its
errors, beside those of other tests. With two seeds none of them was shown to keep its level, so
three are the least.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes seconds to import

from vmunet.evaluation.few_units import jackknife_variance
from vmunet.evaluation.metrics import Floats
from vmunet.evaluation.samples import Sample

SEEDS = 3  # of each method, or of the runs that a published value is compared with
Agreement = Literal["equivalent", "different", "undecided"]


@dataclass(frozen=True)
class Paired:
    """A score of model b minus that of model a, on the same units.

    Attributes:
        difference: in the score's unit; nan if undefined.
        low, high: its 95% interval.
        p: two-sided; nan if undefined.
        n: the number of units.
        methods: whether interval and p hold for other trainings too, and not for these alone.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    methods: bool


def enough_seeds(a: Sample, b: Sample) -> bool:
    """Whether `methods` can compare the two."""
    return min(a.seeds, b.seeds) >= SEEDS


def methods(a: Sample, b: Sample) -> dict[str, Paired]:
    """Every score of method b minus that of method a, over seeds and units together.

    Args:
        a, b: samples of the same units in the same order, each with at least three seeds.

    Returns:
        by score; interval and p are nan if nothing varies, as among copies of one training.
    """
    one, other = a.of_seeds(), b.of_seeds()
    of_units = jackknife_variance([a, b])
    return {name: _welch(one[name], other[name], of_units[name], a.units) for name in of_units}


def _welch(one: Floats, other: Floats, of_units: float, units: int) -> Paired:
    difference = float(other.mean() - one.mean())
    parts = ((float(v.var(ddof=1)) / len(v), len(v) - 1) for v in (one, other))
    variances = [*parts, (of_units, units - 1)]
    variance = sum(part for part, _ in variances)
    if math.isnan(variance + difference) or not variance:
        return Paired(difference, math.nan, math.nan, math.nan, units, methods=True)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in variances if degrees)
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 0.975)) * error
    p = float(2 * stdtr(freedom, -abs(difference) / error))
    return Paired(difference, difference - half, difference + half, p, units, methods=True)


def prediction_interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 95% interval in which one new run's score is expected, from those of at least two runs.

    Normal theory: mean -+ t s sqrt(1 + 1/n), with n - 1 degrees of freedom.
    """
    n = len(scores)
    half = stdtrit(n - 1, 0.975) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / n)
    return float(np.mean(scores) - half), float(np.mean(scores) + half)


def mean_interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 90% interval of the mean of all runs: that of two one-sided tests at 5%."""
    half = stdtrit(len(scores) - 1, 0.95) * np.std(scores, ddof=1) / math.sqrt(len(scores))
    return float(np.mean(scores) - half), float(np.mean(scores) + half)


def agreement(scores: Sequence[float], published: float, margin: float) -> Agreement:
    """Whether the mean of all runs is within `margin` of a published value (which counts as exact).

    `equivalent` if the mean's whole 90% interval is (two one-sided tests, Schuirmann 1987),
    `different` if none of it is, else `undecided`.
    """
    low, high = (end - published for end in mean_interval(scores))
    if -margin < low and high < margin:
        return "equivalent"
    return "different" if low > margin or high < -margin else "undecided"
