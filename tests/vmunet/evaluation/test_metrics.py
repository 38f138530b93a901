import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from tests.helpers.paths import ROOT
from vmunet.errors import InputError
from vmunet.evaluation.metrics import (
    PER_IMAGE,
    POOLED,
    confusion_counts,
    interval,
    mean_scores,
    per_image_scores,
    pooled_scores,
    thresholded_jaccard,
)
from vmunet.evaluation.samples import ImageSample
from vmunet.evaluation.volume_metrics import dice_hd95, mean_volume_scores, volume_scores

GOLDEN = ROOT / "tests/golden"
EXPECTED = json.loads((GOLDEN / "losses_metrics.json").read_text())
INPUTS = load_file(GOLDEN / "losses_metrics_inputs.safetensors")

masks = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)))
mask_pairs = masks.flatmap(
    lambda first: st.tuples(st.just(first), hnp.arrays(bool, st.just(first.shape)))
)
quick = settings(max_examples=60, deadline=None)


def bootstrap_intervals(counts, resamples):
    drawn = ImageSample(counts[None]).resampled(resamples)
    return {name: interval(values) for name, values in drawn.items()}


def blobs(images=40, seed=0):
    """Counts of squares predicted a few pixels off, (images, 4)."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((images, 32, 32), dtype=bool)
    prediction = np.zeros_like(truth)
    for i in range(images):
        y, x = rng.integers(4, 12, 2)
        side = rng.integers(6, 14)
        truth[i, y : y + side, x : x + side] = True
        dy, dx = rng.integers(-4, 5, 2)
        prediction[i, y + dy : y + dy + side, x + dx : x + dx + side] = True
    return confusion_counts(prediction, truth)


def test_golden_binary_scores():
    counts = confusion_counts(INPUTS["binary_prob"][:, 0], INPUTS["binary_target"][:, 0])
    expected = EXPECTED["binary"]
    assert counts.sum(0).tolist() == [expected[name] for name in ("tp", "fp", "fn", "tn")]
    scores = pooled_scores(counts)
    for name in POOLED:
        assert scores[name] == pytest.approx(expected[name], rel=1e-12)


def test_one_half_is_foreground_on_both_sides():
    values = np.array([[[0.4999, 0.5]]], dtype=np.float32)
    assert confusion_counts(values, values).tolist() == [[1, 0, 0, 1]]


@quick
@given(mask_pairs)
def test_counts_are_pixelwise_logic(pair):
    prediction, truth = pair
    counts = confusion_counts(prediction, truth)
    for i in range(len(truth)):
        p, t = prediction[i], truth[i]
        cells = [(p & t).sum(), (p & ~t).sum(), (~p & t).sum(), (~p & ~t).sum()]
        assert counts[i].tolist() == cells


@quick
@given(mask_pairs)
def test_dice_is_a_function_of_iou_and_all_lie_in_the_unit_interval(pair):
    counts = confusion_counts(*pair)
    pooled, each = pooled_scores(counts), per_image_scores(counts)
    assert pooled["dsc"] == pytest.approx(2 * pooled["miou"] / (1 + pooled["miou"]))
    np.testing.assert_allclose(each["dice"], 2 * each["iou"] / (1 + each["iou"]))
    values = np.concatenate([np.array(list(pooled.values())), *each.values()])
    values = values[~np.isnan(values)]
    assert ((values >= 0) & (values <= 1)).all()
    assert not np.isnan(np.concatenate([each["iou"], each["dice"], each["acc"]])).any()


@quick
@given(mask_pairs, st.sampled_from([1, 2, (1, 2)]))
def test_flipping_both_changes_nothing(pair, axis):
    flipped = [np.flip(mask, axis) for mask in pair]
    np.testing.assert_array_equal(confusion_counts(*flipped), confusion_counts(*pair))


@quick
@given(mask_pairs)
def test_exchanging_truth_and_prediction_keeps_overlap_scores(pair):
    prediction, truth = pair
    one, other = confusion_counts(prediction, truth), confusion_counts(truth, prediction)
    assert pooled_scores(one)["miou"] == pooled_scores(other)["miou"]
    np.testing.assert_array_equal(per_image_scores(one)["dice"], per_image_scores(other)["dice"])


@quick
@given(masks)
def test_perfect_prediction_scores_one(truth):
    counts = confusion_counts(truth, truth)
    each = per_image_scores(counts)
    assert all((value[~np.isnan(value)] == 1).all() for value in each.values())
    if truth.any() and not truth.all():
        assert set(pooled_scores(counts).values()) == {1.0}
        means = mean_scores(counts)
        assert {means["mean_dice"], means["mean_iou"], means["thresholded_jaccard"]} == {1.0}


@quick
@given(mask_pairs)
def test_counts_of_one_image_pool_to_its_own_scores(pair):
    prediction, truth = pair[0][:1], pair[1][:1]
    counts = confusion_counts(prediction, truth)
    if truth.any() and not truth.all():
        pooled, each = pooled_scores(counts), per_image_scores(counts)
        assert pooled["miou"] == each["iou"][0]
        for name in ("acc", "spe", "sen"):
            assert pooled[name] == each[name][0]


def test_empty_truth_and_empty_prediction():
    # columns: tp, fp, fn, tn; both empty, falsely predicted, missed, truth everywhere
    counts = np.array([[0, 0, 0, 9], [0, 4, 0, 5], [0, 0, 4, 5], [9, 0, 0, 0]])
    each = per_image_scores(counts)
    assert each["dice"].tolist() == [1, 0, 0, 1]
    assert each["iou"].tolist() == [1, 0, 0, 1]
    np.testing.assert_array_equal(each["sen"], [np.nan, np.nan, 0, 1])
    np.testing.assert_array_equal(each["spe"], [1, 5 / 9, 1, np.nan])
    means = mean_scores(counts)
    assert means["mean_dice"] == 0.5
    assert means["mean_sen"] == 0.5  # of the two images that have a lesion
    # The published convention is 0 if the denominator is 0.
    assert pooled_scores(counts[:1]) == {"miou": 0, "dsc": 0, "acc": 1, "spe": 1, "sen": 0}
    assert np.isnan(mean_scores(counts[:1])["mean_sen"])


def test_challenge_jaccard_drops_to_zero_below_065():
    iou = np.array([0.0, 0.6499, 0.65, 0.9])
    assert thresholded_jaccard(iou).tolist() == [0, 0, 0.65, 0.9]


def test_intervals_hold_the_point_and_repeat():
    counts = blobs()
    intervals = bootstrap_intervals(counts, 2500)
    assert intervals == bootstrap_intervals(counts, 2500)
    points = {**pooled_scores(counts), **mean_scores(counts)}
    assert intervals.keys() == points.keys()
    assert {f"mean_{name}" for name in PER_IMAGE} < points.keys()
    for name, (low, high) in intervals.items():
        assert low < points[name] < high, name


def test_intervals_equal_a_plain_loop_over_resamples():
    counts = blobs(images=12)
    counts[0] = [0, 0, 0, 1024]  # sensitivity undefined: must drop out of its mean
    draws = np.random.default_rng(0).integers(12, size=(400, 12))
    pooled = [pooled_scores(counts[draw])["dsc"] for draw in draws]
    means = [mean_scores(counts[draw])["mean_sen"] for draw in draws]
    intervals = bootstrap_intervals(counts, 400)
    np.testing.assert_allclose(intervals["dsc"], np.quantile(pooled, [0.025, 0.975]))
    np.testing.assert_allclose(intervals["mean_sen"], np.quantile(means, [0.025, 0.975]))


def test_interval_width_is_that_of_the_mean_standard_error():
    counts = blobs(images=400)
    dice = per_image_scores(counts)["dice"]
    low, high = bootstrap_intervals(counts, 4000)["mean_dice"]
    expected = 2 * 1.96 * dice.std() / np.sqrt(len(dice))
    assert high - low == pytest.approx(expected, rel=0.06)


def test_ten_thousand_resamples_of_808_images_are_quick():
    counts = np.tile(blobs(), (21, 1))[:808]
    start = time.perf_counter()
    bootstrap_intervals(counts, 10_000)
    assert time.perf_counter() - start < 5


def test_undefined_everywhere_gives_an_undefined_interval():
    counts = np.array([[0, 0, 0, 9], [0, 1, 0, 8]])
    assert np.isnan(bootstrap_intervals(counts, 50)["mean_sen"]).all()


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"\(2, 4, 4\)"):
        confusion_counts(np.zeros((2, 4, 4)), np.zeros((2, 4, 5)))
    with pytest.raises(InputError, match=r"counts of images are \(1, 0, 4\)"):
        bootstrap_intervals(np.zeros((0, 4), dtype=int), 10)
    with pytest.raises(InputError, match="0 resamples"):
        bootstrap_intervals(blobs(2), 0)


def volumes(index):
    return INPUTS[f"volume{index}_pred"], INPUTS[f"volume{index}_gt"]


@pytest.mark.parametrize("index", range(4))
def test_golden_volume_scores(index):
    measured = dice_hd95(*volumes(index), "paper")
    assert measured == pytest.approx(EXPECTED["volume_dice_hd95_pred_gt"][index], rel=1e-6)


def test_degenerate_volumes_under_both_conventions():
    missed, invented = volumes(2), volumes(3)
    assert not missed[0].any()
    assert not invented[1].any()
    neither = (missed[0], invented[1])
    assert dice_hd95(*neither, "paper") == (0, 0)
    np.testing.assert_array_equal(dice_hd95(*missed, "sound"), (0, np.nan))
    np.testing.assert_array_equal(dice_hd95(*invented, "sound"), (0, np.nan))
    np.testing.assert_array_equal(dice_hd95(*neither, "sound"), (np.nan, np.nan))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, (3.0, 0.75, 0.5)]))
def test_cropped_volumes_score_as_medpy_on_the_whole(seed, spacing):
    from medpy.metric import binary

    rng = np.random.default_rng(seed)
    shape = (7, 12, 11)
    prediction, truth = np.zeros(shape, bool), np.zeros(shape, bool)
    for mask in (prediction, truth):
        low = rng.integers(0, [6, 10, 9])
        high = low + rng.integers(1, 6, 3)  # may reach the volume's edge
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    for convention in ("paper", "sound"):
        dice, hd95 = dice_hd95(prediction, truth, convention, spacing)
        assert dice == binary.dc(prediction, truth)
        assert hd95 == binary.hd95(prediction, truth, voxelspacing=spacing)


def test_spacing_turns_voxels_into_mm():
    prediction, truth = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    truth[1, 4, 4] = prediction[4, 4, 4] = True
    assert dice_hd95(prediction, truth, "sound")[1] == 3
    assert dice_hd95(prediction, truth, "sound", (2.5, 1.0, 1.0))[1] == 7.5


def test_classes_are_averaged_over_volumes_then_classes():
    truth = np.zeros((4, 8, 8), dtype=np.uint8)
    truth[1:3, 2:6, 2:6] = 1
    truth[0, 0, 0] = 2
    prediction = np.where(truth == 2, 0, truth)  # class 2 is missed, class 3 is absent
    scores = volume_scores(prediction, truth, (1, 2, 3), "sound")
    np.testing.assert_array_equal(scores, [[1, 0], [0, np.nan], [np.nan, np.nan]])
    means = mean_volume_scores(np.stack([scores, scores]))
    assert means["dice"] == 0.5
    assert means["hd95"] == 0
    assert means["class_dice_n"].tolist() == [2, 2, 0]
    assert means["class_hd95_n"].tolist() == [2, 0, 0]
    published = volume_scores(prediction, truth, (1, 2, 3), "paper")
    np.testing.assert_array_equal(published, [[1, 0], [0, 0], [0, 0]])


def test_wrong_volumes_are_named():
    volume = np.ones((2, 3, 4))
    with pytest.raises(InputError, match=r"\(2, 3, 5\)"):
        dice_hd95(volume, np.ones((2, 3, 5)), "paper")
    with pytest.raises(InputError, match="spacing"):
        dice_hd95(volume, volume, "sound", (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="convention"):
        dice_hd95(volume, volume, "mine")
