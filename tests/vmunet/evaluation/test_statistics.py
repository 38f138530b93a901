"""Intervals, permutation tests and Holm: laws, plain implementations, scipy, calibration."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vmunet.errors import InputError
from vmunet.evaluation.few_units import FEW
from vmunet.evaluation.metrics import (
    interval,
    mean_scores,
    per_image_scores,
    pooled_scores,
)
from vmunet.evaluation.samples import MEAN, CaseSample, ImageSample
from vmunet.evaluation.statistics import (
    EXACT_UNITS,
    holm,
    intervals,
    paired,
    permutation_p,
)

quick = settings(max_examples=40, deadline=None)
ORGANS = ("liver", "spleen", "aorta")


def counts(images, seeds=1, seed=0, quality=0.8, pixels=1000):
    """Counts (seeds, images, 4): one truth, of which each seed finds about the share `quality`."""
    rng = np.random.default_rng(seed)
    lesion = np.random.default_rng(99).integers(50, 400, images)
    tp = (lesion * np.clip(rng.normal(quality, 0.1, (seeds, images)), 0, 1)).astype(int)
    fp = rng.integers(0, 100, (seeds, images))
    return np.stack([tp, fp, lesion - tp, pixels - lesion - fp], axis=-1)


def case_values(cases=12, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0.7 + shift, 0.15, (1, cases, len(ORGANS))), 0, 1)


@st.composite
def pairs(draw, most=6):
    """Two models' counts of the same few images, with empty truths and predictions among them."""
    n = draw(st.integers(1, most))
    models = [
        draw(hnp.arrays(np.int64, (draw(st.integers(1, 3)), n, 4), elements=st.integers(0, 4)))
        for _ in range(2)
    ]
    for model_counts in models:
        model_counts[..., 3] += 1  # every image has a pixel
    return [ImageSample(model_counts) for model_counts in models]


# Samples -----------------------------------------------------------------------------------


def test_scores_are_means_over_the_seeds():
    image_counts = counts(20, seeds=3)
    scores = ImageSample(image_counts).scores()
    each = [pooled_scores(c) | mean_scores(c) for c in image_counts]
    assert scores == pytest.approx({k: np.mean([one[k] for one in each]) for k in each[0]})


def test_intervals_of_one_seed_are_those_of_its_resamples():
    image_counts = counts(FEW)
    sample = ImageSample(image_counts)
    expected = {name: interval(values) for name, values in sample.resampled(2500).items()}
    assert intervals(sample, 2500) == expected


@quick
@given(pairs())
def test_scores_come_of_the_sums(samples):
    """Permutation tests compute the score itself from `parts`, if there is one seed."""
    one = ImageSample(samples[0].counts[:1])
    scores = one.of_sums(one.parts().sum(0)[None])
    for name, value in one.scores().items():
        np.testing.assert_allclose(scores[name][0], value, rtol=1e-12, atol=1e-15, err_msg=name)


def test_cases_average_over_cases_then_organs_without_nan():
    values = case_values(6)
    values[0, :, 2] = np.nan
    values[0, 0, 0] = np.nan
    sample = CaseSample(values, ORGANS)
    expected = np.nanmean(values[0, :, :2], axis=0)
    assert sample.scores()["liver"] == pytest.approx(expected[0])
    assert sample.scores()[MEAN] == pytest.approx(expected.mean())
    assert math.isnan(sample.scores()["aorta"])
    low, high = intervals(sample, 500)[MEAN]
    assert low < expected.mean() < high
    assert np.isnan(intervals(sample, 500)["aorta"]).all()
    scores = sample.of_sums(sample.parts().sum(0)[None])
    assert scores[MEAN][0] == pytest.approx(expected.mean())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageSample(np.zeros((2, 3))), r"counts of images are \(2, 3\)"),
        (lambda: ImageSample(np.zeros((1, 2, 4))), "an image has no pixel"),
        (lambda: ImageSample(np.array([[[1.0, np.nan, 0, 0]]])), "negative or nan"),
        (lambda: ImageSample(np.array([[[3, -1, 0, 0]]])), "negative or nan"),
        (lambda: CaseSample(np.zeros((1, 2, 4)), ORGANS), "3 organs"),
        (
            lambda: permutation_p(ImageSample(counts(2)), ImageSample(counts(3))),
            "2 and 3 units",
        ),
    ],
)
def test_wrong_input_is_named(make, words):
    with pytest.raises(InputError, match=words):
        make()


# Intervals ---------------------------------------------------------------------------------


@quick
@given(st.integers(0, 2**31), st.integers(15, 60), st.integers(1, 3))
def test_intervals_hold_the_estimate(seed, images, seeds):
    sample = ImageSample(counts(images, seeds, seed))
    measured = intervals(sample, 400)
    for name, value in sample.scores().items():
        low, high = measured[name]
        assert low <= value <= high, name


def test_interval_is_that_of_scipy():
    """Percentile method, of the mean Dice: two estimates of the same quantiles."""
    sample = ImageSample(counts(40, quality=0.6))
    dice = per_image_scores(sample.counts[0])["dice"]
    low, high = intervals(sample)["mean_dice"]
    theirs = scipy.stats.bootstrap(
        (dice,), np.mean, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.05 * width)
    assert high == pytest.approx(theirs.high, abs=0.05 * width)


def test_interval_of_a_paired_difference_is_that_of_scipy():
    a, b = (ImageSample(counts(40, seed=s, quality=q)) for s, q in ((1, 0.8), (2, 0.7)))
    dice = [per_image_scores(model.counts[0])["dice"] for model in (a, b)]
    measured = paired(a, b)["mean_dice"]
    expected = scipy.stats.bootstrap(
        (dice[1] - dice[0],), np.mean, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    width = expected.high - expected.low
    assert measured.difference == pytest.approx(np.mean(dice[1] - dice[0]))
    assert measured.low == pytest.approx(expected.low, abs=0.05 * width)
    assert measured.high == pytest.approx(expected.high, abs=0.05 * width)
    assert measured.n == 40


def test_models_meet_the_same_images_in_a_resample():
    """A model, and the same with one pixel less: the difference hardly varies, the scores do."""
    image_counts = counts(30)
    less = image_counts + np.array([-1, 0, 1, 0])
    measured = paired(ImageSample(image_counts), ImageSample(less), 500)["dsc"]
    low, high = intervals(ImageSample(image_counts), 500)["dsc"]
    assert measured.high < 0
    assert measured.high - measured.low < 0.1 * (high - low)


def test_more_seeds_do_not_narrow_by_pretending_more_images():
    """Three seeds with the same results are one."""
    image_counts = counts(30)
    assert intervals(ImageSample(np.repeat(image_counts, 3, 0)), 500)["dsc"] == pytest.approx(
        intervals(ImageSample(image_counts), 500)["dsc"]
    )


# Tests -------------------------------------------------------------------------------------


@quick
@given(pairs())
def test_p_is_the_same_the_other_way_round(samples):
    a, b = samples
    one, other = permutation_p(a, b), permutation_p(b, a)
    for name, p in one.items():
        np.testing.assert_equal(other[name], p, err_msg=name)


def test_random_p_is_the_same_the_other_way_round():
    a, b = ImageSample(counts(40, 2, 1)), ImageSample(counts(40, 3, 2, quality=0.76))
    one = permutation_p(a, b, 500)
    assert one == permutation_p(b, a, 500) == permutation_p(a, b, 500)
    assert 1 / 501 < one["dsc"] < 1


@pytest.mark.parametrize("images", [4, EXACT_UNITS + 1])
def test_a_model_does_not_differ_from_itself(images):
    sample = ImageSample(counts(images, seeds=2))
    assert set(permutation_p(sample, sample, 300).values()) == {1.0}
    twice = ImageSample(np.repeat(sample.counts, 2, 0))  # the same results of four seeds
    assert set(permutation_p(sample, twice, 300).values()) == {1.0}


@quick
@given(pairs(most=5))
def test_exact_p_is_brute_force(samples):
    """All swaps of one seed's counts, computed in whole numbers."""
    a, b = (model.counts[0] for model in samples)
    # Counts, not shares of all pixels: so both models must have the same number of pixels.
    b = b.copy()
    b[:, 3] += np.maximum(a.sum(1) - b.sum(1), 0)
    a = a.copy()
    a[:, 3] += np.maximum(b.sum(1) - a.sum(1), 0)
    p_by_score = permutation_p(ImageSample(a[None]), ImageSample(b[None]))
    hits = dict.fromkeys(p_by_score, 0)
    observed = _differences(a, b)
    for swap in itertools.product([False, True], repeat=len(a)):
        swapped = np.array(swap)[:, None]
        moved = _differences(np.where(swapped, b, a), np.where(swapped, a, b))
        for name in hits:
            hits[name] += not abs(moved[name]) < abs(observed[name]) - 1e-9
    for name, p in p_by_score.items():
        expected = np.nan if np.isnan(observed[name]) else hits[name] / 2 ** len(a)
        np.testing.assert_equal(p, expected, err_msg=name)


def _differences(a, b):
    first, second = (
        pooled_scores(model_counts) | mean_scores(model_counts) for model_counts in (a, b)
    )
    return {name: second[name] - first[name] for name in first}


def test_exact_p_of_cases_is_brute_force():
    a, b = case_values(6, 1), case_values(6, 2, 0.1)
    a[0, 2, 1] = np.nan  # sound convention: an absent organ that one model did not predict
    measured = permutation_p(CaseSample(a, ORGANS), CaseSample(b, ORGANS))[MEAN]
    hits, observed = 0, None
    for swap in itertools.product([False, True], repeat=6):
        swapped = np.array(swap)[:, None]
        means = [
            np.nanmean(np.where(swapped, *of), axis=0).mean() for of in ((b[0], a[0]), (a[0], b[0]))
        ]
        difference = abs(means[1] - means[0])
        observed = difference if observed is None else observed
        hits += difference >= observed - 1e-12
    assert measured == hits / 64


@pytest.mark.parametrize(("images", "draws"), [(10, 10_000), (40, 20_000)])
def test_p_is_that_of_scipy(images, draws):
    """Exact for 10 images; for 40 within the error of two random estimates."""
    a, b = (ImageSample(counts(images, seed=s, quality=q)) for s, q in ((3, 0.8), (4, 0.76)))
    dice = [per_image_scores(of.counts[0])["dice"] for of in (a, b)]
    theirs = scipy.stats.permutation_test(
        dice,
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        permutation_type="samples",
        n_resamples=draws,
        vectorized=True,
        rng=5,
    ).pvalue
    ours = permutation_p(a, b, draws)["mean_dice"]
    assert 0.02 < theirs < 0.9
    exact = images <= EXACT_UNITS
    error = 0 if exact else 4 * math.sqrt(2 * theirs * (1 - theirs) / draws)
    assert ours == pytest.approx(theirs, abs=error + 1e-12)


def test_p_is_calibrated_if_there_is_no_difference():
    """Of 400 pairs that differ by chance about 5% have p < 0.05, for pooled and mean scores."""
    small = {"dsc": 0, "mean_dice": 0}
    for i in range(400):
        image_counts = counts(20, seeds=2, seed=i)
        swapped = np.random.default_rng(i).random(20) < 0.5  # exchangeable by construction
        image_counts = np.where(swapped[:, None], image_counts, image_counts[::-1])
        p = permutation_p(ImageSample(image_counts[:1]), ImageSample(image_counts[1:]), 199)
        for name in small:
            small[name] += p[name] <= 0.05
    for name, n in small.items():
        assert 8 <= n <= 34, (name, n)  # 20 expected; 3 standard deviations are 13


def test_p_of_a_clear_difference_is_the_smallest_there_is():
    a, b = ImageSample(counts(30, quality=0.9)), ImageSample(counts(30, seed=1, quality=0.5))
    assert permutation_p(a, b, 999)["dsc"] == 1 / 1000
    a, b = case_values(12), case_values(12) - 0.3
    assert permutation_p(CaseSample(a, ORGANS), CaseSample(b, ORGANS))[MEAN] == 2 / 4096


def test_sizes_of_the_input_do_not_decide():
    """Counts at twice the side are four times as many: the same model."""
    a, b = counts(20), counts(20, seed=1, quality=0.75)
    p_values = permutation_p(ImageSample(a), ImageSample(b), 500)
    assert permutation_p(ImageSample(a), ImageSample(4 * b), 500) == p_values
    assert set(permutation_p(ImageSample(a), ImageSample(4 * a), 500).values()) == {1.0}


def test_undefined_scores_have_no_p():
    a = np.array([[[0, 1, 0, 8], [0, 0, 0, 9]]])
    p_by_score = permutation_p(ImageSample(a), ImageSample(a))
    assert math.isnan(p_by_score["mean_sen"])
    assert p_by_score["mean_dice"] == 1
    assert math.isnan(paired(ImageSample(a), ImageSample(a), 50)["mean_sen"].difference)


# Holm              -------------------------------------------------------------------------

p_values = st.lists(st.none() | st.floats(0, 1), max_size=8)


@given(p_values)
def test_holm_is_its_definition(values):
    """A corrected p is the largest of (m - rank) p over the p values that are not larger."""
    corrected_values = holm(values)
    tested = sorted(p for p in values if p is not None)
    for p, corrected in zip(values, corrected_values, strict=True):
        if p is None:
            assert corrected is None
        else:
            steps = [(len(tested) - i) * q for i, q in enumerate(tested) if q <= p]
            assert corrected == min(1, max(steps))


@given(p_values)
def test_holm_keeps_the_order_and_never_helps(values):
    tests = [(p, c) for p, c in zip(values, holm(values), strict=True) if p is not None]
    assert all(p <= c <= min(1, len(tests) * p) for p, c in tests)
    ordered = [c for _, c in sorted(tests)]
    assert ordered == sorted(ordered)


def test_holm_example():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, None, 0.06, 0.02], nan_ok=True
    )
    assert holm([]) == []
    assert holm([None]) == [None]
