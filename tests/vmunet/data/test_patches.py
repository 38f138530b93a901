"""Patches of volumes: their sizes, the labelled half, turns, and samples that repeat by seed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.utils.data import DataLoader

from vmunet import InputError
from vmunet.data.patches import (
    PatchDataset,
    TileDataset,
    Volumes,
    cut,
    labelled_voxel,
    patch_sides,
    patches_of,
    starts,
)
from vmunet.data.slice_dataset import SliceDataset
from vmunet.data.volumes import Case, Pixels, write_volumes
from vmunet.protocols import PAPER, SOUND
from vmunet.settings import Augmentation

SIZE = 32
SIDES = (16, 16, 16)
DEPTHS = {"a": 11, "b": 21, "c": 18}
STILL = Augmentation(turns=0, rotation=0)


def pixels(name: str) -> Pixels:
    """Random values; label 1 lies at an edge, label 2 in one corner voxel, and c has none."""
    random = np.random.default_rng(list(name.encode()))
    shape = (DEPTHS[name], SIZE, SIZE)
    labels = np.zeros(shape, np.uint8)
    if name != "c":
        labels[-3:, :4, 10:20] = 1
        labels[0, -1, -1] = 2
    return Pixels(random.random(shape, np.float32), labels, (3.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "arrays"
    cases = [Case(name, lambda name=name: pixels(name)) for name in DEPTHS]
    write_volumes(folder, {}, ["left", "right"], cases[:2], cases[2:])
    return folder


@pytest.fixture(scope="module")
def volumes(arrays: Path) -> Volumes:
    return Volumes(arrays, ["a", "b"], 2, SIZE, "area", SIDES[0])


@settings(max_examples=200, deadline=None)
@given(
    depths=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    size=st.integers(16, 512),
    stride=st.sampled_from([8, 16, 32]),
)
def test_sides_are_the_largest_multiples_that_fit(depths: list[int], size: int, stride: int):
    if size < stride:
        return
    depth, height, width = patch_sides(depths, size, stride)
    assert height == width <= size
    assert all(side % stride == 0 and stride <= side <= 64 for side in (depth, height))
    assert depth <= max(stride, min(depths))
    assert depth + stride > min(64, min(depths))
    assert height + stride > min(64, size)


def test_patches_have_the_voxels_of_the_slices() -> None:
    assert patches_of(2211, 224, (64, 64, 64)) == round(2211 * 224 * 224 / 64**3) == 423
    assert patches_of(32, 224, (64, 64, 64)) == 6
    assert patches_of(4, 64, (16, 64, 64)) == 1


def test_what_no_patch_fits_is_refused() -> None:
    with pytest.raises(InputError, match=r"slices of 8 px .* smallest patch .* 16 px"):
        patch_sides([20], 8, 16)
    for depths in ([], [20, 0]):
        with pytest.raises(InputError, match="has no slices"):
            patch_sides(depths, 32, 16)


def test_short_volumes_are_padded_and_slices_resized_as_for_other_models(arrays: Path) -> None:
    volumes = Volumes(arrays, ["a", "b"], 2, 48, "cubic", 16)
    assert volumes.slices == [11, 21]
    slices = SliceDataset(arrays, ["a", "b"], 48, PAPER)
    for number, (first, padded) in enumerate(((0, 2), (11, 0))):
        image, labels = volumes[number]
        depth = volumes.slices[number]
        assert image.shape == labels.shape == (max(depth, 16), 48, 48)
        assert not image[:padded].any()
        assert not labels[padded + depth :].any()
        for row in range(depth):
            expected = slices[first + row]
            assert np.array_equal(image[padded + row], expected[0][0])
            assert np.array_equal(labels[padded + row], expected[1])
        assert np.array_equal(
            volumes.counts[number],
            [np.bincount(plane.ravel(), minlength=3) for plane in labels],
        )


def test_a_label_of_no_class_is_named(arrays: Path) -> None:
    with pytest.raises(InputError, match="a has label 2 and there are 1 classes"):
        Volumes(arrays, ["a"], 1, SIZE, "area", 16)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 500),
    protocol=st.sampled_from([PAPER, SOUND]),
    limit=st.sampled_from([None, 90.0]),
)
def test_half_of_the_patches_hold_a_class(volumes, seed, epoch, protocol, limit) -> None:
    """Every second one: both classes lie at the volume's edge, and rotations keep them inside."""
    data = PatchDataset(volumes, SIDES, protocol, seed, Augmentation(rotation_limit=limit))
    for now in (epoch, epoch + 1):
        data.set_epoch(now)
        for index in range(len(data)):
            image, labels = data[index]
            assert (image.shape, labels.shape) == ((1, *SIDES), SIDES)
            if (now + index) % 2 == 0:
                assert labels.any()


def test_both_classes_are_drawn_alike_and_all_of_their_voxels(volumes) -> None:
    """One has a voxel, the other 120."""
    labels, counts = volumes[1].labels, volumes.counts[1]
    random = np.random.default_rng(0)
    drawn = [labelled_voxel(labels, counts, random) for _ in range(2000)]
    of_class = [int(labels[voxel]) for voxel in drawn]
    assert 900 < of_class.count(1) < 1100
    assert of_class.count(1) + of_class.count(2) == 2000
    assert set(drawn) == set(zip(*map(np.ndarray.tolist, np.nonzero(labels)), strict=True))


def test_a_volume_without_labels_gives_patches_from_anywhere(arrays: Path) -> None:
    data = PatchDataset(Volumes(arrays, ["c"], 2, SIZE, "area", 16), SIDES, PAPER)
    assert len(data) == round(18 * SIZE**2 / 16**3)
    assert all(not data[index][1].any() for index in range(len(data)))


def test_patches_are_cut_where_they_say(volumes) -> None:
    """Unturned patches are parts of their volume, and all volumes and places are seen."""
    data, seen = PatchDataset(volumes, SIDES, PAPER, 5, STILL), set()
    assert len(data) == 8
    for epoch in range(40):
        data.set_epoch(epoch)
        for index in range(len(data)):
            image, labels = data[index]
            number, start = found(volumes, image[0].numpy())
            window = tuple(slice(a, a + 16) for a in start)
            assert np.array_equal(labels.numpy(), volumes[number].labels[window])
            seen.add((number, *start))
    assert {place[0] for place in seen} == {0, 1}
    assert len(seen) > 100
    numbers = [data._volume_of(epoch, i) for epoch in range(300) for i in range(len(data))]
    assert np.mean(numbers) == pytest.approx(21 / 32, abs=0.02)  # by the slices


def found(volumes: Volumes, patch: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """The volume that holds a patch, and its first voxel there."""
    inside = np.argwhere(patch > 0)[0]
    for number in range(len(volumes)):
        for place in np.argwhere(volumes[number].image == patch[tuple(inside)]):
            start = place - inside
            window = tuple(slice(a, a + 16) for a in start)
            if np.array_equal(volumes[number].image[window], patch):
                return number, tuple(start.tolist())
    raise AssertionError("not a part of a volume")


@pytest.mark.parametrize("order", [0, 1])
def test_a_rotation_about_the_centre_is_scipy_s(order: int) -> None:
    volume = np.random.default_rng(0).random((4, 33, 33), np.float32)
    turned = cut(volume, (0, 0, 0), (4, 33, 33), (1, 16, 16), 17.0, order)
    expected = ndimage.rotate(volume, 17.0, (2, 1), reshape=False, order=order)
    middle = (slice(None), slice(8, 25), slice(8, 25))
    np.testing.assert_allclose(turned[middle], expected[middle], atol=1e-6)


def test_a_rotated_patch_is_filled_from_its_surroundings() -> None:
    volume = np.ones((4, 64, 64), np.float32)
    assert (cut(volume, (0, 24, 24), (4, 16, 16), (2, 32, 32), 45.0, 0) == 1).all()
    assert (cut(volume, (0, 0, 0), (4, 16, 16), (2, 8, 8), 45.0, 0) == 0).any()


def test_turns_do_not_mix_slices(volumes) -> None:
    data = PatchDataset(volumes, SIDES, PAPER, 3, Augmentation(turns=1))
    plain = PatchDataset(volumes, SIDES, PAPER, 3, STILL)
    for index in range(len(data)):
        before, after = plain[index][0][0], data[index][0][0]
        assert torch.equal(before.sum((1, 2)) > 0, after.sum((1, 2)) > 0)
        ordered = [part.flatten(1).sort().values for part in (before, after)]
        assert torch.equal(*ordered)  # each slice has the same values
    still = PatchDataset(volumes, SIDES, SOUND, 3, Augmentation(rotation=0))
    assert all(torch.equal(still[i][0], plain[i][0]) for i in range(len(plain)))


def test_a_patch_is_a_function_of_seed_epoch_and_index(volumes) -> None:
    def samples(seed: int, epoch: int, copy: bool = False) -> list[torch.Tensor]:
        data = PatchDataset(volumes, SIDES, PAPER, seed)
        data.set_epoch(epoch)
        data = pickle.loads(pickle.dumps(data)) if copy else data
        return [data[i][0] for i in reversed(range(len(data)))]

    first = samples(1, 4)
    for again in (samples(1, 4), samples(1, 4, copy=True)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (samples(1, 5), samples(2, 4)):
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_temporary_files_go_with_the_volumes(arrays: Path) -> None:
    volumes = Volumes(arrays, ["a"], 2, SIZE, "area", 16)
    folder, copy = volumes._folder, pickle.loads(pickle.dumps(volumes))
    del copy  # as a worker that ends
    assert len(list(folder.iterdir())) == 2
    del volumes
    assert not folder.exists()


@given(length=st.integers(1, 300), side=st.integers(1, 64))
def test_tiles_cover_an_axis(length: int, side: int) -> None:
    if length < side:
        return
    covered = {place for start in starts(length, side) for place in range(start, start + side)}
    assert covered == set(range(length))
    assert len(starts(length, side)) == -(-length // side)


def test_tiles_are_the_whole_volumes_unchanged(volumes) -> None:
    tiles = TileDataset(volumes, SIDES)
    assert len(tiles) == 1 * 4 + 2 * 4
    image, labels = tiles[4 + 7]
    assert np.array_equal(image[0], volumes[1].image[5:21, 16:, 16:])
    assert np.array_equal(labels, volumes[1].labels[5:21, 16:, 16:])


def test_a_loader_s_worker_gives_patches(volumes) -> None:
    images, labels = next(iter(DataLoader(PatchDataset(volumes, SIDES, PAPER), 3, num_workers=1)))
    assert (images.shape, images.dtype) == ((3, 1, *SIDES), torch.float32)
    assert (labels.shape, labels.dtype) == ((3, *SIDES), torch.int64)
