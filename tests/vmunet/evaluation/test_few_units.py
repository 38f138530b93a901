"""Studentized intervals of few units, and units that are groups: laws, a plain implementation."""

import numpy as np
import pytest

from benchmarks import coverage
from vmunet.errors import InputError
from vmunet.evaluation.few_units import FEW, LEAST, jackknife_variance, studentized
from vmunet.evaluation.metrics import resampling_weights
from vmunet.evaluation.samples import MEAN, CaseSample, ImageSample
from vmunet.evaluation.statistics import intervals, paired, permutation_p

ONE = ("organ",)


def cases(values, **fields):
    return CaseSample(np.asarray(values, dtype=float).reshape(1, -1, 1), ONE, **fields)


def counts(images, seed=0, seeds=1):
    rng = np.random.default_rng(seed)
    tp, fp, fn = rng.integers(1, 300, (3, seeds, images))
    return np.stack([tp, fp, fn, 2000 - tp - fp - fn], axis=-1)


def test_of_a_mean_it_is_the_textbook_bootstrap_t():
    """Each resample's own standard error is that of its mean."""
    values = np.random.default_rng(3).beta(5, 2, 12)
    n, estimate = 12, values.mean()
    ratios = []
    for weights in resampling_weights(n, 2000):
        for row in weights:
            drawn = np.repeat(values, row.astype(int))
            error = drawn.std(ddof=1) / np.sqrt(n)
            ratios += [(drawn.mean() - estimate) / error]
    high, low = np.quantile(ratios, [0.025, 0.975])
    error = values.std(ddof=1) / np.sqrt(n)
    expected = (estimate - low * error, estimate - high * error)
    assert studentized([cases(values)], 2000)[MEAN] == pytest.approx(expected, rel=1e-9)


def test_the_jackknife_of_a_mean_is_its_variance():
    values = np.random.default_rng(3).random(9)
    assert jackknife_variance([cases(values)])[MEAN] == pytest.approx(values.var(ddof=1) / 9)
    twice = [cases(values), cases(3 * values)]
    assert jackknife_variance(twice)[MEAN] == pytest.approx((2 * values).var(ddof=1) / 9)


def test_the_difference_of_two_is_the_interval_of_the_differences():
    one, other = np.random.default_rng(4).random((2, 12))
    of_two = studentized([cases(one), cases(other)], 500)[MEAN]
    of_one = studentized([cases(other - one + 1, highest=9.0)], 500)[MEAN]
    assert of_two == pytest.approx(np.array(of_one) - 1)


def test_few_units_have_wider_intervals_within_the_scores_range():
    sample = cases([0.99, 0.94, 1.0, 1.0, 0.85, 0.96])
    low, high = intervals(sample, 2000)[MEAN]
    resampled = sample.resampled(2000)[MEAN]
    assert low < np.quantile(resampled, 0.025)
    assert high <= 1.0
    assert intervals(cases([3.0, 200.0, 5.0, 4.0, 6.0], highest=np.inf), 500)[MEAN][0] >= 0


def test_units_that_do_not_vary_have_their_score_as_interval():
    assert studentized([cases([0.4] * LEAST)], 300)[MEAN] == pytest.approx((0.4, 0.4))


def test_an_undefined_score_has_no_interval():
    values = np.array([[0.5, 0.6, 0.7, 0.5, 0.4], [np.nan] * 5]).T
    of_both = studentized([CaseSample(values[None], ("a", "b"))], 300)
    assert np.isnan(of_both["b"]).all()
    assert not np.isnan(of_both["a"]).any()


@pytest.mark.parametrize("units", range(1, LEAST + 1))
def test_fewer_than_five_units_have_no_interval(units):
    values = np.linspace(0.5, 0.9, units)
    one, other = cases(values), cases(values**2)
    none = units < LEAST
    assert np.isnan(intervals(one, 300)[MEAN]).all() == none
    of_both = paired(one, other, 300)[MEAN]
    assert np.isnan([of_both.low, of_both.high]).all() == none
    assert of_both.p <= 1
    patients = cases(np.repeat(values, 3), groups=[f"p{i // 3}" for i in range(3 * units)])
    assert np.isnan(intervals(patients, 300)[MEAN]).all() == none


def test_an_interval_of_all_that_a_score_can_be_is_none():
    """One lesion of 24 is the largest by far, and the model misses it."""
    table = np.tile([[50, 5, 2, 4000]], (24, 1)) + np.arange(24)[:, None] % 3
    table[7] = [600, 10, 1100, 2400]
    sample = ImageSample(table[None])
    assert sample.scores()["sen"] > 0.5
    assert np.isnan(intervals(sample)["sen"]).all()
    assert not np.isnan(intervals(sample)["mean_sen"]).any()


def test_from_thirty_units_on_intervals_are_those_of_resamples():
    for images in (FEW - 1, FEW):
        sample = ImageSample(counts(images))
        plain = np.quantile(sample.resampled(500)["dsc"], [0.025, 0.975])
        same = intervals(sample, 500)["dsc"] == pytest.approx(plain)
        assert same == (images == FEW)


# Groups ------------------------------------------------------------------------------------


def test_images_of_a_patient_are_one_unit():
    """Copies of every image, known to be of the same patient, tell nothing new."""
    one = counts(40)
    twice = ImageSample(np.repeat(one, 3, 1), [f"p{i // 3}" for i in range(120)])
    alone = ImageSample(one, [f"p{i}" for i in range(40)])
    assert twice.units == alone.units == 40
    for name, ends in intervals(alone, 500).items():
        assert intervals(twice, 500)[name] == pytest.approx(ends), name
    unknown = ImageSample(np.repeat(one, 3, 1))
    low, high = intervals(twice, 500)["dsc"]
    narrow_low, narrow_high = intervals(unknown, 500)["dsc"]
    assert narrow_high - narrow_low < 0.75 * (high - low)


def test_tests_swap_a_patient_as_a_whole():
    a, b = counts(20, 1), counts(20, 2)
    groups = [f"p{i // 2}" for i in range(40)]
    doubled = [ImageSample(np.repeat(of, 2, 1), groups) for of in (a, b)]
    names = [f"p{i:02}" for i in range(20)]
    ordered = sorted(range(20), key=lambda i: f"p{i}")
    plain = [ImageSample(of[:, ordered], names) for of in (a, b)]
    assert permutation_p(*doubled, 400) == pytest.approx(permutation_p(*plain, 400))
    assert paired(*doubled)["dsc"].n == 20


def test_cases_of_a_patient_are_one_unit():
    values = np.random.default_rng(1).random(8)
    twice = cases(np.repeat(values, 2), groups=[f"p{i // 2}" for i in range(16)])
    assert twice.units == 8
    assert intervals(twice, 400)[MEAN] == pytest.approx(intervals(cases(values), 400)[MEAN])


def test_a_group_for_each_image_or_none():
    with pytest.raises(InputError, match="3 groups of 2 images or cases"):
        ImageSample(counts(2), ["a", "b", "c"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in coverage.KINDS if "missed" not in kind])
def test_twelve_units_are_covered_in_about_95_of_100_cases(kind):
    """Percentile intervals are not, nor are BCa's."""
    share = coverage.row(kind, 12, 400)["coverage"]
    assert share["studentized"] > 0.92
    assert share["percentile"] < share["studentized"] > share["bca"]
