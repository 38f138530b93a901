"""Scores of whole cases, and surface distances against medpy's.

tests/vmunet/evaluation/test_metrics.py also tests the scores of one organ.
"""

import json
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from medpy.metric import binary
from safetensors.numpy import load_file
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.distance import cdist

from benchmarks import hd95 as benchmark
from tests.helpers.paths import ROOT
from vmunet.errors import InputError
from vmunet.evaluation.surface_distance import MaskPair
from vmunet.evaluation.volume_metrics import (
    TOLERANCE,
    CaseScores,
    average_cases,
    dice_hd95,
    mean_volume_scores,
    score_case,
    volume_scores,
)

GOLDEN = ROOT / "tests/golden"
CLASSES = 4
NAMES = ("paper_dice", "paper_hd95", "dice", "hd95", "nsd")

shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))
seeds = st.integers(0, 2**32 - 1)
# Lengths whose squares round: only the same operations in the same order give the same last bit.
spacings = st.sampled_from(
    [(3.0, 0.75, 0.5), (2.5, 0.7, 0.7), (5.0, 0.683, 0.683), (1.3, 0.1, 9.7)]
)
maybe_spacings = st.none() | spacings
quick = settings(max_examples=60, deadline=None)


def blob(rng, shape):
    """A mask: a voxel, a box that may touch every border, noise, or all of the volume."""
    mask = np.zeros(shape, bool)
    kind = rng.integers(5)
    if kind == 0:
        mask[tuple(rng.integers(shape))] = True
    elif kind == 1:
        mask[...] = True
    elif kind == 2:
        mask = rng.random(shape) < rng.choice([0.05, 0.5, 0.95])
    else:
        low = rng.integers(shape)
        high = low + rng.integers(1, 9, 3)
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        mask &= rng.random(shape) < rng.choice([0.8, 1.0])
    return mask


def blobs(seed, shape):
    rng = np.random.default_rng(seed)
    pair = blob(rng, shape), blob(rng, shape)
    assume(pair[0].any() and pair[1].any())
    return pair


def labels(seed, shape=(6, 14, 13)):
    """Prediction and truth, (depth, height, width) 0..3; some labels may be missing."""
    rng = np.random.default_rng(seed)
    pair = np.zeros((2, *shape), np.uint8)
    for volume in pair:
        for label in rng.permutation(range(1, CLASSES))[: rng.integers(0, CLASSES)]:
            volume[blob(rng, shape)] = label
    return pair


@settings(max_examples=300, deadline=None)
@given(seeds, shapes, maybe_spacings)
def test_one_organ_equals_medpy_to_the_last_bit(seed, shape, spacing):
    prediction, truth = blobs(seed, shape)
    dice, distance = dice_hd95(prediction, truth, "sound", spacing)
    assert dice == binary.dc(prediction, truth)
    assert distance == binary.hd95(prediction, truth, voxelspacing=spacing)


@quick
@given(seeds, shapes, maybe_spacings)
def test_every_distance_equals_the_whole_volumes_to_the_last_bit(seed, shape, spacing):
    """A stricter test than HD95: medpy takes its percentile of these distances."""
    masks = blobs(seed, shape)
    surfaces = [mask ^ binary_erosion(mask) for mask in masks]
    mm = None if spacing is None else np.array(spacing)
    both_ways = list(MaskPair(*masks).distances(mm))
    for distances, here, there in zip(both_ways, surfaces, surfaces[::-1], strict=True):
        expected = distance_transform_edt(~there, sampling=spacing)[here]
        np.testing.assert_array_equal(distances, expected)


@quick
@given(seeds, shapes, maybe_spacings)
def test_exchanging_prediction_and_truth_changes_nothing(seed, shape, spacing):
    prediction, truth = blobs(seed, shape)
    one = dice_hd95(prediction, truth, "sound", spacing)
    assert one == dice_hd95(truth, prediction, "sound", spacing)


@quick
@given(seeds, shapes, maybe_spacings)
def test_an_organ_equals_itself(seed, shape, spacing):
    mask = blobs(seed, shape)[0]
    assert dice_hd95(mask, mask, "paper", spacing) == (1, 0)


@quick
@given(seeds, shapes, spacings, st.tuples(*[st.integers(0, 5)] * 6))
def test_background_around_changes_nothing(seed, shape, spacing, margins):
    """So translation and the border of the volume do not matter either."""
    prediction, truth = blobs(seed, shape)
    around = list(zip(margins[:3], margins[3:], strict=True))
    moved = np.pad(prediction, around), np.pad(truth, around)
    one = dice_hd95(prediction, truth, "sound", spacing)
    assert one == dice_hd95(*moved, "sound", spacing)


@quick
@given(st.tuples(*[st.integers(-3, 3)] * 3), spacings)
def test_distance_of_two_voxels(offset, spacing):
    prediction, truth = np.zeros((2, 7, 7, 7), bool)
    truth[3, 3, 3] = prediction[tuple(np.add(3, offset))] = True
    distance = dice_hd95(prediction, truth, "sound", spacing)[1]
    assert distance == pytest.approx(np.linalg.norm(np.multiply(offset, spacing)))


@quick
@given(seeds, maybe_spacings, st.integers(1, 3))
def test_a_case_is_its_organs(seed, spacing, workers):
    prediction, truth = labels(seed)
    scores = score_case(prediction, truth, CLASSES, spacing, workers=workers)
    organs = range(1, CLASSES)
    paper = volume_scores(prediction, truth, organs, "paper")
    sound = volume_scores(prediction, truth, organs, "sound", spacing)
    np.testing.assert_array_equal(np.stack([scores.paper_dice, scores.paper_hd95], 1), paper)
    np.testing.assert_array_equal(scores.dice, sound[:, 0])
    if spacing is None:  # mm are not known
        assert np.isnan([scores.hd95, scores.nsd]).all()
    else:
        np.testing.assert_array_equal(scores.hd95, sound[:, 1])
        np.testing.assert_array_equal(np.isnan(scores.nsd), np.isnan(scores.dice))


def surface_voxels(mask):
    """Coordinates of voxels that have a face to the background, one by one."""
    padded = np.pad(mask, 1)
    steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    voxels = np.argwhere(padded)
    return np.array([v for v in voxels if not all(padded[tuple(v + s)] for s in steps)])


@quick
@given(seeds, shapes, spacings, st.floats(0.1, 8.0))
def test_nsd_is_its_definition(seed, shape, spacing, tolerance):
    prediction, truth = blobs(seed, shape)
    pair = [surface_voxels(mask) * spacing for mask in (prediction, truth)]
    between = cdist(*pair)
    within = [(between.min(axis) <= tolerance).sum() for axis in (0, 1)]
    assume(not np.isclose(between, tolerance).any())
    scores = score_case(prediction, truth, 2, spacing, tolerance)
    assert scores.nsd[0] == pytest.approx(sum(within) / sum(map(len, pair)))


def test_nsd_counts_surfaces_within_each_organs_tolerance():
    prediction, truth = np.zeros((2, 4, 8, 8), int)
    truth[0, 1, 1], prediction[0, 1, 3] = 1, 1  # 2 voxels, 1.5 mm apart
    truth[2:, 4:, 4:] = prediction[2:, 4:, 4:] = 2
    prediction[2, 0, 0] = 2  # one of 33 surface voxels, far from all others
    spacing = (3.0, 0.75, 0.75)
    assert score_case(prediction, truth, 3, spacing).nsd.tolist() == [1, pytest.approx(64 / 65)]
    nsd = score_case(prediction, truth, 3, spacing, tolerance=(1.4, 1.5)).nsd
    assert nsd.tolist() == [0, pytest.approx(64 / 65)]
    assert score_case(prediction, truth, 3, spacing, tolerance=1.5).nsd[0] == 1
    assert TOLERANCE == 2


def test_golden_cases():
    expected = json.loads((GOLDEN / "losses_metrics.json").read_text())["volume_dice_hd95_pred_gt"]
    inputs = load_file(GOLDEN / "losses_metrics_inputs.safetensors")
    for index, scores in enumerate(expected):
        case = score_case(inputs[f"volume{index}_pred"], inputs[f"volume{index}_gt"], 2)
        assert [case.paper_dice[0], case.paper_hd95[0]] == pytest.approx(scores, rel=1e-6)


def degenerate_case(spacing=(2.0, 1.0, 1.0)):
    """Organs 1..4: found, missed, predicted but absent, absent in both."""
    prediction, truth = np.zeros((2, 3, 6, 6), np.int64)
    truth[1, 1:3, 1:3], prediction[2, 1:3, 1:3] = 1, 1
    truth[0, 5, 5], prediction[0, 0, 0] = 2, 3
    return score_case(prediction, truth, 5, spacing)


def test_degenerate_organs_under_both_conventions():
    nan = np.nan
    scores = degenerate_case()
    np.testing.assert_array_equal(scores.paper_dice, [0, 0, 1, 0])
    np.testing.assert_array_equal(scores.paper_hd95, [1, 0, 0, 0])
    np.testing.assert_array_equal(scores.dice, [0, 0, 0, nan])
    np.testing.assert_array_equal(scores.hd95, [2, nan, nan, nan])
    np.testing.assert_array_equal(scores.nsd, [1, 0, 0, nan])
    unknown = degenerate_case(spacing=None)
    np.testing.assert_array_equal(unknown.paper_hd95, scores.paper_hd95)
    np.testing.assert_array_equal(unknown.dice, scores.dice)
    assert np.isnan([unknown.hd95, unknown.nsd]).all()


def test_empty_volumes():
    scores = score_case(np.zeros((0, 4, 4), int), np.zeros((0, 4, 4), int), 3, (1, 1, 1))
    assert scores.paper_dice.tolist() == [0, 0]
    assert np.isnan([scores.dice, scores.hd95, scores.nsd]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_labels_may_have_any_type(dtype):
    prediction, truth = labels(5)
    expected = score_case(prediction, truth, CLASSES)
    scores = score_case(prediction.astype(dtype), truth.astype(dtype), CLASSES)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(scores, name), getattr(expected, name))


def test_averages_are_over_cases_then_organs():
    nan = np.nan
    cases = [
        CaseScores(*np.array([[0.9, 0.0], [4, 0], [0.9, nan], [6, nan], [1, nan]], float)),
        CaseScores(*np.array([[0.5, 0.4], [2, 8], [0.5, 0.4], [nan, nan], [nan, nan]], float)),
    ]
    means = average_cases(cases)
    assert means.cases == 2
    assert means.absent.tolist() == [0, 1]
    assert means.paper_dice.organs.tolist() == [0.7, 0.2]
    assert means.paper_dice.overall == pytest.approx(0.45)
    assert (means.paper_hd95.organs.tolist(), means.paper_hd95.overall) == ([3, 4], 3.5)
    # Undefined scores are left out: organ 2 has one case with a Dice and none with an HD95.
    assert means.dice.organs.tolist() == [0.7, 0.4]
    assert means.dice.n.tolist() == [2, 1]
    assert means.dice.overall == pytest.approx(0.55)
    np.testing.assert_array_equal(means.hd95.organs, [6, nan])
    assert (means.hd95.n.tolist(), means.hd95.overall) == ([1, 0], 6)
    assert means.nsd.overall == 1


def test_averages_agree_with_those_of_volume_scores():
    cases, tables = [], []
    for seed in range(4):
        prediction, truth = labels(seed)
        cases.append(score_case(prediction, truth, CLASSES))
        tables.append(volume_scores(prediction, truth, range(1, CLASSES), "paper"))
    means, published = average_cases(cases), mean_volume_scores(np.stack(tables))
    assert means.paper_dice.overall == published["dice"]
    assert means.paper_hd95.overall == published["hd95"]
    np.testing.assert_array_equal(means.paper_hd95.organs, published["class_hd95"])


VOLUME = np.ones((2, 3, 4), np.int64)


@pytest.mark.parametrize(
    ("prediction", "truth", "options", "message"),
    [
        (VOLUME, VOLUME[:1], {}, r"prediction is \(2, 3, 4\) and the truth \(1, 3, 4\)"),
        (VOLUME[0], VOLUME[0], {}, r"expected \(depth, height, width\)"),
        (VOLUME[None], VOLUME[None], {}, r"expected \(depth, height, width\)"),
        (VOLUME * 3, VOLUME, {}, r"prediction: labels 3\.\.3; expected 0\.\.2"),
        (VOLUME, VOLUME * -1, {}, r"truth: labels -1\.\.-1; expected 0\.\.2"),
        (VOLUME, VOLUME * np.nan, {}, "truth: some labels are nan or not whole"),
        (VOLUME * 0.5, VOLUME, {}, "prediction: some labels are nan or not whole"),
        (VOLUME * np.inf, VOLUME, {}, "prediction: labels inf"),
        (VOLUME.astype(complex), VOLUME, {}, "prediction: some labels are nan or not whole"),
        (VOLUME, VOLUME, {"spacing": (1.0, 1.0)}, "spacing is .* 3 of them"),
        (VOLUME, VOLUME, {"spacing": 1.0}, "spacing is 1.0"),
        (VOLUME, VOLUME, {"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        (VOLUME, VOLUME, {"spacing": (1.0, np.nan, 1.0)}, "spacing"),
        (VOLUME, VOLUME, {"spacing": ("a", "b", "c")}, "spacing"),
        (VOLUME, VOLUME, {"tolerance": -1.0}, "tolerance"),
        (VOLUME, VOLUME, {"tolerance": (1.0, 2.0, 3.0)}, "tolerance is .* 2 of them"),
        (VOLUME, VOLUME, {"classes": 1}, "1 classes"),
        (VOLUME, VOLUME, {"workers": 0}, "0 workers"),
    ],
)
def test_wrong_cases_are_named(prediction, truth, options, message):
    with pytest.raises(InputError, match=message):
        score_case(prediction, truth, **{"classes": 3, **options})


def test_wrong_masks_and_averages_are_named():
    with pytest.raises(InputError, match="truth holds nan"):
        dice_hd95(VOLUME, VOLUME * np.nan, "sound")
    with pytest.raises(InputError, match="0 cases"):
        average_cases([])
    one, other = (score_case(VOLUME, VOLUME, classes) for classes in (2, 3))
    with pytest.raises(InputError, match=r"\[1, 2\] organs"):
        average_cases([one, other])


def test_benchmark(tmp_path, monkeypatch, capsys):
    output = tmp_path / "hd95.json"
    options = ["--rounds", "1", "--workers", "2", "--shape", "20", "48", "48"]
    monkeypatch.setattr(sys, "argv", ["hd95", *options, "--output", str(output)])
    benchmark.main()
    assert "equal scores" in capsys.readouterr().out
    assert json.loads(output.read_text())["against_medpy"]["faster"] > 1
