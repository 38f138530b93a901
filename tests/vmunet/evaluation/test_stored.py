"""Predictions that an evaluation keeps, and the reliability of its probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmunet.errors import InputError
from vmunet.evaluation.calibration import BINS, reliability
from vmunet.evaluation.stored import read_labels, read_masks, write_labels, write_masks


@given(n=st.integers(1, 3), size=st.integers(1, 21), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_masks_come_back_as_they_were(tmp_path_factory, n, size, seed):
    path = tmp_path_factory.mktemp("masks") / "predictions.npz"
    masks, truth = np.random.default_rng(seed).random((2, n, size, size)) < 0.5
    write_masks(path, [f"image {i} ä" for i in range(n)], masks, truth)
    stored = read_masks(path)
    assert stored.ids == [f"image {i} ä" for i in range(n)]
    assert np.array_equal(stored.masks, masks)
    assert np.array_equal(stored.truth, truth)


def test_masks_are_small_and_the_same_bytes_twice(tmp_path):
    masks = np.zeros((50, 256, 256), bool)
    masks[:, 60:200, 40:180] = True
    for name in ("a", "b"):
        write_masks(tmp_path / f"{name}.npz", [str(i) for i in range(50)], masks, masks)
    content = (tmp_path / "a.npz").read_bytes()
    assert content == (tmp_path / "b.npz").read_bytes()
    assert len(content) < 50_000


def test_labels_come_back_as_they_were(tmp_path):
    labels = np.random.default_rng(1).integers(0, 9, (5, 7, 6), dtype=np.uint8)
    write_labels(tmp_path / "p.npz", {"file": labels, "case/2": labels[:2]})
    stored = read_labels(tmp_path / "p.npz")
    assert list(stored) == ["file", "case/2"]
    assert np.array_equal(stored["file"], labels)
    assert stored["case/2"].dtype == np.uint8


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_one_error_that_names_it(tmp_path, content):
    path = tmp_path / "predictions.npz"
    if content is not None:
        path.write_bytes(content)
    for read in (read_masks, read_labels):
        with pytest.raises(InputError, match=r"predictions\.npz.*evaluate the run again"):
            read(path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, ids=np.array([{"a": 1}], dtype=object), size=1)
    with pytest.raises(InputError, match="not readable"):
        read_masks(path)


def test_masks_and_labels_are_not_taken_for_each_other(tmp_path):
    masks = np.ones((1, 4, 4), bool)
    write_masks(tmp_path / "m.npz", ["a"], masks, masks)
    write_labels(tmp_path / "l.npz", {"a": np.ones((1, 4, 4), np.uint8)})
    with pytest.raises(InputError, match="holds no labels"):
        read_labels(tmp_path / "m.npz")
    with pytest.raises(InputError, match="not the masks"):
        read_masks(tmp_path / "l.npz")


def test_reliability_of_probabilities_that_are_right_and_wrong():
    generator = np.random.default_rng(3)
    probabilities = generator.random((20, 60, 60)).astype(np.float32)
    truth = generator.random(probabilities.shape) < probabilities
    right = reliability(probabilities, truth)
    assert sum(right["pixels"]) == probabilities.size
    assert right["ece"] < 0.02
    sure = reliability(np.where(truth, 1.0, 0.0).astype(np.float32), ~truth)
    assert sure["ece"] == 1
    assert sure["lesion"][0] == 1
    assert sure["lesion"][-1] == 0
    assert sure["lesion"][1] is None
    assert sure["pixels"][BINS - 1] == truth.sum()


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40))
def test_reliability_counts_every_pixel_in_its_own_bin(pixels):
    probabilities = np.array([[[p for p, _ in pixels]]], dtype=np.float32)
    truth = np.array([[[t for _, t in pixels]]])
    bins = reliability(probabilities, truth)
    for low, high, n, mean, part in zip(
        *(bins[name] for name in ("low", "high", "pixels", "probability", "lesion")), strict=True
    ):
        own = [
            (float(np.float32(p)), t)
            for p, t in pixels
            if low <= min(int(float(np.float32(p)) * BINS), BINS - 1) / BINS + 1e-12 < high
        ]
        assert n == len(own)
        if own:
            assert mean == pytest.approx(np.mean([p for p, _ in own]))
            assert part == pytest.approx(np.mean([t for _, t in own]))
        else:
            assert mean is part is None
    assert 0 <= bins["ece"] <= 1
