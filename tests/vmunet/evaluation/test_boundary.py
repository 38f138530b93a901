"""The border's scores against dense distance maps, and the cases that have no distance."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from vmunet.evaluation.boundary import TOLERANCE, boundary_scores


def masks(seed, shape=(60, 90)):
    """Two noisy masks, which touch the image's edges and have holes."""
    rng = np.random.default_rng(seed)
    return [rng.random(shape) < share for share in (0.02, 0.6)]


@pytest.mark.parametrize("seed", range(3))
def test_equals_dense_distance_maps(seed):
    one, other = masks(seed)
    borders = [mask & ~binary_erosion(mask) for mask in (one, other)]
    distances = np.concatenate(
        [distance_transform_edt(~there)[here] for here, there in (borders, borders[::-1])]
    )
    scores = boundary_scores(one, other)
    near = distances <= TOLERANCE * np.hypot(60, 90)
    assert scores.nsd == near.mean()
    assert 0 < scores.nsd < 1
    assert scores.hd95_px == pytest.approx(np.percentile(distances, 95), rel=1e-12)
    assert scores.hd95_penalised_px == scores.hd95_px
    assert boundary_scores(other, one) == scores


def test_a_shift_within_the_tolerance_costs_nothing_and_a_larger_one_everything():
    truth = np.zeros((300, 400), bool)  # diagonal 500: the tolerance is 5 px
    truth[150] = True  # a line over the whole width: every pixel has one nearest, straight below
    for shift, nsd in ((0, 1.0), (5, 1.0), (6, 0.0)):
        scores = boundary_scores(np.roll(truth, shift, axis=0), truth)
        assert (scores.nsd, scores.hd95_px) == (nsd, shift)


def test_without_a_lesion_there_is_no_distance():
    lesion, nothing = np.zeros((2, 30, 40), bool)
    lesion[10:20, 10:20] = True
    both = boundary_scores(nothing, nothing)
    assert (both.nsd, both.hd95_penalised_px) == (1.0, 0.0)
    for pair in ((lesion, nothing), (nothing, lesion)):
        scores = boundary_scores(*pair)
        assert (scores.nsd, scores.hd95_penalised_px) == (0.0, 50.0)
        assert math.isnan(scores.hd95_px)
    assert math.isnan(both.hd95_px)
