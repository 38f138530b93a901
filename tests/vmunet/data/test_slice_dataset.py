"""Slices of volumes: the published augmentation, the sound one, and samples that repeat by seed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from vmunet import InputError
from vmunet.data.slice_dataset import SliceDataset, augment
from vmunet.data.volumes import Case, Pixels, write_volumes
from vmunet.protocols import PAPER, SOUND
from vmunet.settings import Augmentation

SIZE = 32
DEPTHS = {"a": 3, "b": 5, "c": 2}


def pixels(name: str) -> Pixels:
    random = np.random.default_rng(list(name.encode()))
    shape = (DEPTHS[name], 48, 40)
    labels = np.zeros(shape, np.uint8)
    labels[:, 10:30, 8:20] = 1
    labels[:, 12:20, 22:36] = 2
    return Pixels(random.random(shape, np.float32), labels, (3.0, 1.0, 1.0))


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    cases = [Case(name, lambda name=name: pixels(name)) for name in DEPTHS]
    write_volumes(tmp_path / "arrays", {}, ["left", "right"], cases[:2], cases[2:])
    return tmp_path / "arrays"


def test_samples_are_the_slices_in_order(arrays: Path) -> None:
    data = SliceDataset(arrays, ["b", "a"], SIZE, PAPER)
    assert len(data) == 8
    for index, (name, row) in enumerate(
        [("b", i) for i in range(5)] + [("a", i) for i in range(3)]
    ):
        image, labels = data[index]
        assert image.shape == (1, SIZE, SIZE)
        assert image.dtype == torch.float32
        assert labels.shape == (SIZE, SIZE)
        assert labels.dtype == torch.int64
        of_case = pixels(name)
        factors = (SIZE / 48, SIZE / 40)  # as the published code resizes: order 3 and order 0
        expected = ndimage.zoom(of_case.image[row], factors, order=3)
        assert np.array_equal(image[0].numpy(), expected)
        expected = ndimage.zoom(of_case.labels[row], factors, order=0)
        assert np.array_equal(labels.numpy(), expected)


def test_area_averages_and_keeps_labels(arrays: Path) -> None:
    image, labels = SliceDataset(arrays, ["a"], SIZE, SOUND)[1]
    assert float(image.mean()) == pytest.approx(float(pixels("a").image[1].mean()), abs=1e-3)
    assert float(image.std()) < float(pixels("a").image[1].std())  # noise is averaged
    assert set(labels.unique().tolist()) == {0, 1, 2}


class Draws:
    """A generator that returns the test's values."""

    def __init__(self, floats: list[float], integers: list[int], degrees: float = 0.0) -> None:
        self.floats, self.whole, self.degrees = floats, integers, degrees

    def random(self) -> float:
        return self.floats.pop(0)

    def integers(self, *bounds: int) -> int:
        low, high = bounds if len(bounds) == 2 else (0, bounds[0])
        assert low <= self.whole[0] < high
        return self.whole.pop(0)

    def uniform(self, low: float, high: float) -> float:
        assert (low, high) == (-20, 20)
        return self.degrees


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("axis", [0, 1])
def test_paper_turns_by_quarters_and_flips(turns: int, axis: int) -> None:
    image, labels = pixels("a").image[0], pixels("a").labels[0]
    got = augment(image, labels, PAPER, Draws([0.6], [turns, axis]))  # type: ignore[arg-type]
    for part, before in zip(got, (image, labels), strict=True):
        assert np.array_equal(part, np.flip(np.rot90(before, turns), axis))


def test_paper_rotates_by_whole_degrees_to_the_nearest_pixel() -> None:
    image, labels = pixels("a").image[0], pixels("a").labels[0]
    got = augment(image, labels, PAPER, Draws([0.4, 0.6], [-13]))  # type: ignore[arg-type]
    for part, before in zip(got, (image, labels), strict=True):
        assert np.array_equal(part, ndimage.rotate(before, -13, order=0, reshape=False))
    same = augment(image, labels, PAPER, Draws([0.4, 0.4], []))  # type: ignore[arg-type]
    assert same[0] is image


def test_sound_never_mirrors() -> None:
    """A mirrored body has its left kidney on the right: the classes would be mixed."""
    image, labels = pixels("a").image[0], pixels("a").labels[0]
    for seed in range(40):
        _, turned = augment(image, labels, SOUND, np.random.default_rng(seed))
        left, right = (np.nonzero(turned == label)[1].mean() for label in (1, 2))
        assert left < right
    got = augment(image, labels, SOUND, Draws([0.6], [], 7.5))  # type: ignore[arg-type]
    assert np.array_equal(got[0], ndimage.rotate(image, 7.5, order=1, reshape=False))
    assert np.array_equal(got[1], ndimage.rotate(labels, 7.5, order=0, reshape=False))


def published(image: np.ndarray, labels: np.ndarray, draws: np.random.Generator) -> tuple:
    """The published transform line by line, and its action: turn, rotate or leave."""
    done = "left"
    if draws.random() > 0.5:
        k, axis = draws.integers(0, 4), draws.integers(0, 2)
        image, labels = (np.flip(np.rot90(a, k), axis=axis).copy() for a in (image, labels))
        done = "turned"
    elif draws.random() > 0.5:
        angle = draws.integers(-20, 20)
        image, labels = (ndimage.rotate(a, angle, order=0, reshape=False) for a in (image, labels))
        done = "rotated"
    height, width = image.shape
    image = ndimage.zoom(image, (SIZE / height, SIZE / width), order=3)
    labels = ndimage.zoom(labels, (SIZE / height, SIZE / width), order=0)
    return image, labels, done


def test_samples_are_those_of_the_published_transform(arrays: Path) -> None:
    data = SliceDataset(arrays, ["a", "b"], SIZE, PAPER, augmented=True, seed=3)
    plain = [(name, row) for name in ("a", "b") for row in range(DEPTHS[name])]
    count = {"turned": 0, "rotated": 0, "left": 0}
    for epoch in range(50):
        data.set_epoch(epoch)
        for index, (name, row) in enumerate(plain):
            of_case = pixels(name)
            # labels are floats, as in the published files
            image, labels, done = published(
                of_case.image[row],
                of_case.labels[row].astype(np.float32),
                np.random.default_rng((3, epoch, index)),
            )
            count[done] += 1
            assert np.array_equal(data[index][0][0].numpy(), image)
            assert np.array_equal(data[index][1].numpy(), labels.astype(np.int64))
    # a half, a quarter, a quarter of 400, within three deviations
    assert 170 <= count["turned"] <= 230
    assert 74 <= count["rotated"] <= 126
    assert 74 <= count["left"] <= 126


def test_settings_say_how_often_and_how_far() -> None:
    image, labels = pixels("a").image[0], pixels("a").labels[0]
    never, random = Augmentation(turns=0, rotation=0), np.random.default_rng(0)
    for protocol in (PAPER, SOUND):
        assert all(augment(image, labels, protocol, random, never)[0] is image for _ in range(20))

    class Wide(Draws):
        def uniform(self, low: float, high: float) -> float:
            assert (low, high) == (-45, 45)
            return 30.0

    wide = Augmentation(rotation=1, rotation_limit=45)
    got, _ = augment(image, labels, SOUND, Wide([0.01], []), wide)  # type: ignore[arg-type]
    assert np.array_equal(got, ndimage.rotate(image, 30, order=1, reshape=False))


def test_a_sample_is_a_function_of_seed_epoch_and_index(arrays: Path) -> None:
    def samples(seed: int, epoch: int, copy: bool = False) -> list[torch.Tensor]:
        data = SliceDataset(arrays, ["a", "b"], SIZE, PAPER, augmented=True, seed=seed)
        data.set_epoch(epoch)
        data = pickle.loads(pickle.dumps(data)) if copy else data
        return [data[i][0] for i in reversed(range(len(data)))]

    first = samples(1, 4)
    for again in (samples(1, 4), samples(1, 4, copy=True)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (samples(1, 5), samples(2, 4)):
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_broken_arrays_are_named(arrays: Path) -> None:
    with pytest.raises(InputError, match=r"missing/image\.npy: cannot be read"):
        SliceDataset(arrays, ["missing"], SIZE, PAPER)
    np.save(arrays / "cases" / "a" / "labels.npy", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"image \(3, 48, 40\) and labels \(3, 4, 4\) differ"):
        SliceDataset(arrays, ["a"], SIZE, PAPER)


def test_slices_of_the_right_size_are_not_resized(arrays: Path) -> None:
    case = arrays / "cases" / "a"
    square = np.random.default_rng(0).random((3, SIZE, SIZE), np.float32)
    np.save(case / "image.npy", square)
    np.save(case / "labels.npy", np.ones((3, SIZE, SIZE), np.uint8))
    for protocol in (PAPER, SOUND):
        image, _ = SliceDataset(arrays, ["a"], SIZE, protocol)[2]
        assert np.array_equal(image[0].numpy(), square[2])
