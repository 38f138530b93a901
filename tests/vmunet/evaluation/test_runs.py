"""Tests of methods over seeds, prediction, equivalence: formulas, scipy, simulation, bad input."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import methods as simulation
from vmunet.evaluation.runs import (
    SEEDS,
    agreement,
    enough_seeds,
    mean_interval,
    methods,
    prediction_interval,
)
from vmunet.evaluation.samples import MEAN, CaseSample
from vmunet.evaluation.statistics import difference_p, paired, permutation_p

scores = st.lists(st.floats(50, 90), min_size=3, max_size=6)


def sample(seeds, units=40, seed=0, shift=0.0, spread=0.01):
    rng = np.random.default_rng(seed)
    values = 0.6 + shift + rng.normal(0, 0.05, (seeds, units, 1))
    return CaseSample(values + rng.normal(0, spread, (seeds, 1, 1)), ("organ",))


def test_it_is_welchs_test_if_units_do_not_vary():
    rng = np.random.default_rng(1)
    one, other = 0.7 + rng.normal(0, 0.02, 3), 0.72 + rng.normal(0, 0.01, 4)
    a, b = (CaseSample(np.repeat(of[:, None, None], 5, axis=1), ("organ",)) for of in (one, other))
    theirs = scipy.stats.ttest_ind(other, one, equal_var=False)
    found = methods(a, b)[MEAN]
    assert found.p == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_the_units_variance_widens_it():
    """By hand: the variance of the seeds' means and of the units' differences together."""
    a, b = sample(3, seed=1), sample(4, seed=2, shift=0.02)
    one, other = (of.values[..., 0].mean(1) for of in (a, b))
    differences = b.values.mean(0)[:, 0] - a.values.mean(0)[:, 0]
    parts = [(one.var(ddof=1) / 3, 2), (other.var(ddof=1) / 4, 3)]
    parts += [(differences.var(ddof=1) / 40, 39)]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    t = (other.mean() - one.mean()) / math.sqrt(variance)
    found = methods(a, b)[MEAN]
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(abs(t), freedom))
    assert found.low < found.difference < found.high
    mirrored = methods(b, a)[MEAN]
    assert (mirrored.p, mirrored.low) == pytest.approx((found.p, -found.high))


@pytest.mark.parametrize(("seeds", "others"), [(1, 1), (1, 5), (2, 2), (2, 3), (5, 2)])
def test_fewer_than_three_seeds_compare_models_alone(seeds, others):
    a, b = sample(seeds, seed=1), sample(others, seed=2, shift=0.2)
    assert not enough_seeds(a, b)
    assert not paired(a, b, 100)[MEAN].methods
    assert difference_p(a, b) == permutation_p(a, b)


def test_three_seeds_compare_methods():
    a, b = sample(SEEDS, seed=1), sample(SEEDS, seed=2, shift=0.2)
    assert paired(a, b)[MEAN] == methods(a, b)[MEAN]
    assert difference_p(a, b)[MEAN] == methods(a, b)[MEAN].p < 0.05


def test_copies_of_one_training_are_no_seeds():
    """Nothing varies: no number."""
    same = CaseSample(np.full((3, 4, 1), 0.5), ("organ",))
    other = CaseSample(np.full((3, 4, 1), 0.6), ("organ",))
    found = methods(same, other)[MEAN]
    assert math.isnan(found.p)
    assert math.isnan(found.low)


@given(scores)
@settings(max_examples=30, deadline=None)
def test_a_new_run_varies_more_than_the_mean(values):
    low, high = prediction_interval(values)
    mean_low, mean_high = mean_interval(values)
    assert low <= mean_low <= np.mean(values) + 1e-9
    assert high >= mean_high >= np.mean(values) - 1e-9


def test_prediction_holds_a_new_run_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        *seen, new = rng.normal(80, 0.83, 4)
        low, high = prediction_interval(seen)
        held += low <= new <= high
    assert 0.925 < held / 1000 < 0.975


def test_agreement_by_its_definition():
    close = [80.0, 80.1, 79.9, 80.05]
    assert agreement(close, 80.1, 0.7) == "equivalent"
    assert agreement(close, 82.0, 0.7) == agreement(close, 78.0, 0.7) == "different"
    assert agreement([78.0, 80.0, 82.0], 80.1, 0.7) == "undecided"
    t = scipy.stats.ttest_1samp(np.array(close) - 80.1 + 0.7, 0, alternative="greater")
    assert t.pvalue < 0.05


def test_equivalence_is_claimed_wrongly_in_at_most_5_of_100_cases():
    rng = np.random.default_rng(0)
    wrong = sum(agreement(rng.normal(80.7, 0.1, 3), 80.0, 0.7) == "equivalent" for _ in range(1000))
    assert wrong / 1000 < 0.07


@pytest.mark.slow
def test_the_image_interval_holds_what_it_should_not():
    """A model worse by 1.5 points is `inside`, and the paired test finds it: no verdict of that."""
    shares = simulation.inside(60, simulation.logits_of_a_point())
    assert shares["inside"] > 0.9
    assert shares["found by images"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("spread", simulation.SPREADS)
def test_type_one_error(spread):
    """Of two methods that do not differ: the test over seeds and images keeps its level."""
    logits = simulation.logits_of_a_point()
    found = simulation.row(400, 3, spread, 0.0, logits)["found"]
    assert found["methods"] < 0.08
    if spread != "none":
        assert found["images"] > 0.2  # what a star of one seed would claim
        assert found["bootstrap"] > found["methods"]
