"""The images, slices and size classes that the figures show, their numbers and colours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.figures import disc_images, guesses
from vmunet.drawing.figures import fields, pictures, sizes, slices, style
from vmunet.drawing.figures.calibration import Reliability
from vmunet.evaluation import calibration

COUNTS = {"best": 2, "median": 2, "worst": 2}

dices = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0, float("nan")]), min_size=1, max_size=20)


@settings(deadline=None)
@given(dices)
def test_rows_are_chosen_by_dice_then_id_and_once_each(dice):
    values, ids = np.array(dice), [f"id{i:02d}" for i in range(len(dice))]
    groups = pictures.choose(values, ids, COUNTS)
    shown = [i for members in groups.values() for i in members]
    assert len(set(shown)) == len(shown) == min(6, len(ids))
    key = [(np.nan_to_num(values[i], nan=-1.0), ids[i]) for i in shown]
    assert key == sorted(key, reverse=True)
    every = [(np.nan_to_num(values[i], nan=-1.0), ids[i]) for i in range(len(ids))]
    everything = sorted(every, reverse=True)
    if len(ids) >= 6:
        assert key[:2] == everything[:2]
        assert key[-2:] == everything[-2:]
        middle = (len(ids) - 2) // 2
        assert key[2:4] == everything[middle : middle + 2]
    assert pictures.lowest(values, ids, 2) == groups["worst"][::-1][:2]


def test_slices_and_cases_are_chosen_by_rule():
    truth = np.zeros((4, 6, 6), np.uint8)
    truth[0, :3] = 1
    truth[1, 0] = (1, 2, 3, 0, 0, 0)
    truth[2, 1] = (1, 2, 3, 3, 0, 0)
    truth[3, 2] = (1, 2, 3, 3, 0, 0)
    assert slices.choose_slice(truth) == 2
    names = ["d", "c", "b", "a"]
    assert slices.choose_cases(np.array([0.5, 0.9, 0.9, np.nan]), names) == {
        "best": 2,
        "median": 0,
        "worst": 3,
    }
    assert slices.choose_cases(np.array([0.5]), ["a"]) == {"best": 0}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(0, 99))
def test_size_classes_are_equally_large_and_ordered(count, seed):
    random = np.random.default_rng(seed)
    size, dice = random.uniform(0.01, 1, count), random.uniform(0, 1, count)
    bins = sizes.binned(size, dice)
    assert 1 <= len(bins) <= sizes.MOST_BINS
    assert (bins[1:, 0] >= bins[:-1, 2]).all()
    images = [len(part) for part in np.array_split(np.arange(count), len(bins))]
    for (*_, median, low, high), n in zip(bins, images, strict=True):
        assert np.isnan([low, high]).all() if n < sizes.FEW else low <= median <= high


def test_the_calibration_error_is_that_of_the_metrics_file():
    images, truth = disc_images(4, 32)
    table = calibration.reliability(guesses(images, truth, 0), truth)
    numbers = [np.array(table[n], float) for n in ("pixels", "probability", "lesion")]
    run = Reliability("", 0, np.append(table["low"], 1.0), *numbers)
    assert run.error == pytest.approx(table["ece"])


def test_agreement_has_the_three_colours_of_the_legend():
    image = np.full((2, 2, 3), 128, np.uint8)
    truth, prediction = np.array([[1, 1], [0, 0]], bool), np.array([[1, 0], [1, 0]], bool)
    drawn = style.agreement(image, truth, prediction).astype(int)
    for (y, x), colour in (
        ((0, 0), style.TRUE_POSITIVE),
        ((1, 0), style.FALSE_POSITIVE),
        ((0, 1), style.FALSE_NEGATIVE),
    ):
        assert np.abs(drawn[y, x] - np.array(colour)).max() < 60
    assert np.ptp(drawn[1, 1]) == 0


@settings(deadline=None)
@given(st.integers(4, 64), st.floats(0, 1), st.floats(0, 1))
def test_a_square_takes_its_share_of_the_image(size, place, share):
    centre = round(2 * place * (size - 1)) / 2  # of a pixel, or between two pixels
    away = np.abs(np.arange(size) - centre)
    held = int((away <= share * size).sum())
    if held:
        low, high = fields.square(size, centre, (held / size) ** 2)
        assert -0.5 <= low <= high <= size - 0.5
        assert round(high - low) == held
