"""Preprocessing, the dataset, and augmentation as pure functions of their seeds."""

import functools
import io
import json
import pickle
import random
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stages import preprocess as preprocess_stage
from vmunet.data.arrays import ArrayDataset, held_out, load_manifest
from vmunet.data.augment import augmentation, run_angle
from vmunet.data.images import read_rgb
from vmunet.data.isic.official import ISIC17
from vmunet.data.isic.raw import Phantoms, write_raw
from vmunet.data.preprocess import write_arrays
from vmunet.data.resize import min_max, resize_image
from vmunet.errors import InputError
from vmunet.protocols import PAPER, PROTOCOLS, SOUND
from vmunet.settings import Augmentation

SIZE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """data/ with 12 + 4 phantoms as raw pairs and as arrays of both protocols."""
    data = tmp_path_factory.mktemp("data")
    write_raw(ISIC17, data / "raw", "phantom", phantoms=Phantoms(12, 4, 9, 0))
    write_arrays(data / "raw", data / "arrays", "isic17-64", SIZE, [PAPER, SOUND])
    return data


@pytest.mark.parametrize("protocol", [PAPER, SOUND], ids=lambda p: p.name)
def test_arrays_have_the_declared_shapes_and_values(made, protocol):
    folder = made / "arrays" / protocol.name
    manifest = load_manifest(folder)
    assert (manifest["dataset"], manifest["view"]) == ("isic17", "isic17-64")
    assert (manifest["size"], manifest["protocol"]) == (SIZE, protocol.name)
    assert (manifest["source"], manifest["n_train"], manifest["n_test"]) == ("phantom", 9, 7)
    assert len(manifest["archives"]) == 4
    for subset, count in (("train", 9), ("test", 7)):
        images, masks = (np.load(folder / subset / f"{name}.npy") for name in ("images", "masks"))
        assert images.shape == (count, SIZE, SIZE, 3)
        assert masks.shape == (count, SIZE, SIZE)
        assert images.dtype == masks.dtype == np.uint8
        values = set(np.unique(masks).tolist())
        assert values == {0, 255} if protocol is SOUND else len(values) > 2
        ids = (folder / subset / "ids.txt").read_text().split()
        first = min_max(read_rgb(made / "raw" / "images" / f"{ids[0]}.jpg")[0])
        expected = resize_image(first, SIZE, protocol.resize)
        assert np.abs(images[0] - expected).max() <= 0.5
    assert not set((folder / "train/ids.txt").read_text().split()) & set(ids)


def test_native_masks_of_the_test_images_are_kept(made):
    folder = made / "arrays" / "paper" / "test"
    ids = (folder / "ids.txt").read_text().split()
    with zipfile.ZipFile(folder / "native_masks.zip") as archive:
        assert archive.namelist() == [f"{key}.png" for key in ids]
        assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED}
        for key in ids:
            assert archive.read(f"{key}.png") == (made / "raw/masks" / f"{key}.png").read_bytes()
    twin = made / "arrays" / "sound" / "test" / "native_masks.zip"
    assert twin.read_bytes() == (folder / "native_masks.zip").read_bytes()


def test_preprocessing_again_gives_the_same_bytes(made, tmp_path):
    write_arrays(made / "raw", tmp_path / "again", "isic17-64", SIZE, [PAPER, SOUND])
    for path in (p for p in (made / "arrays").rglob("*") if p.is_file()):
        again = tmp_path / "again" / path.relative_to(made / "arrays")
        assert again.read_bytes() == path.read_bytes()


def test_a_missing_photograph_is_named_and_leaves_nothing(made, tmp_path):
    manifest = json.loads((made / "raw/manifest.json").read_text())
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"ISIC_\d+\.jpg: not found; run the download stage"):
        write_arrays(tmp_path / "raw", tmp_path / "out" / "v", "v", SIZE, [PAPER])
    assert list((tmp_path / "out").iterdir()) == []


def test_the_stage_reads_its_view(made, tmp_path, monkeypatch):
    params = preprocess_stage.load_params()
    name = next(iter(params.grid.views))
    view = params.grid.views[name]
    monkeypatch.setattr(preprocess_stage, "load_params", lambda: params)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw" / view.dataset).symlink_to(made / "raw")
    preprocess_stage.main([name])
    for protocol in view.protocols:
        assert load_manifest(f"data/arrays/{name}/{protocol}")["size"] == view.size
    with pytest.raises(InputError, match="view 'isic17-1' is not in params"):
        preprocess_stage.main(["isic17-1"])


def test_samples_are_tensors_of_the_declared_form(made):
    data = ArrayDataset(made / "arrays/paper", "test")
    image, mask = data[0]
    assert image.shape == (3, SIZE, SIZE)
    assert mask.shape == (1, SIZE, SIZE)
    assert image.dtype == mask.dtype == torch.float32
    assert image.is_contiguous()
    stored = np.load(made / "arrays/paper/test/images.npy")[0]
    np.testing.assert_array_equal(image.permute(1, 2, 0), stored)
    assert mask.min() == 0
    assert mask.max() == 1
    assert len(data) == len(data.ids) == 7


def augmented(made, protocol=SOUND, seed=5, subset="train"):
    return ArrayDataset(made / "arrays" / protocol.name, subset, augmentation(protocol, seed), seed)


def test_a_sample_depends_on_seed_epoch_and_index_alone(made):
    data = augmented(made)
    data.set_epoch(3)
    forwards = [data[i] for i in range(len(data))]
    random.seed(1)
    torch.manual_seed(1)
    for i in reversed(range(len(data))):
        assert torch.equal(data[i][0], forwards[i][0])
        assert torch.equal(data[i][1], forwards[i][1])
    seeds = {augmented_seed(data, e, i) for e in range(4) for i in range(9)}
    assert len(seeds) == 36
    assert not seeds & {
        augmented_seed(augmented(made, seed=6), e, i) for e in (0, 1) for i in (0, 1)
    }


def augmented_seed(data, epoch, index):
    data.set_epoch(epoch)
    return data.sample_seed(index)


def test_any_worker_layout_gives_the_same_bits_in_every_epoch(made):
    """Workers that live longer than the first epoch must know of the second."""
    data = augmented(made)
    alone = {}
    for epoch in range(2):
        data.set_epoch(epoch)
        alone[epoch] = torch.stack([data[i][0] for i in range(len(data))])
    assert not torch.equal(alone[0], alone[1])
    loader = DataLoader(data, batch_size=4, num_workers=2, persistent_workers=True)
    for epoch in (1, 0):
        data.set_epoch(epoch)
        assert torch.equal(torch.cat([images for images, _ in loader]), alone[epoch])


def test_a_pickled_dataset_maps_its_files_again(made):
    plain = ArrayDataset(made / "arrays/sound", "train")
    sent = pickle.dumps(plain)
    assert len(sent) < 10_000
    assert torch.equal(pickle.loads(sent)[2][0], plain[2][0])


def test_missing_and_broken_arrays_are_named(made, tmp_path):
    with pytest.raises(
        InputError, match=r"ids\.txt: not found; run the stage of this view \(preprocess"
    ):
        ArrayDataset(tmp_path, "train")
    with pytest.raises(InputError, match=r"manifest\.json: not found"):
        load_manifest(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/ids.txt").write_text("a\nb\n")
    (tmp_path / "train/images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"images\.npy: cannot be read"):
        ArrayDataset(tmp_path, "train")
    for name, count in (("images", 2), ("masks", 1)):
        np.save(tmp_path / f"train/{name}.npy", np.zeros((count, 4, 4), np.uint8))
    with pytest.raises(InputError, match="2 ids, 2 images and 1 masks"):
        ArrayDataset(tmp_path, "train")


def test_pickled_arrays_are_never_loaded(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/ids.txt").write_text("a\n")
    foreign = io.BytesIO()
    np.save(foreign, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "train/images.npy").write_bytes(foreign.getvalue())
    with pytest.raises(InputError, match=r"images\.npy: cannot be read"):
        ArrayDataset(tmp_path, "train")


@functools.cache
def transform_of(name: str, seed: int):
    return augmentation(PROTOCOLS[name], seed)


def shape_pair(size=48):
    """A lesion beside the centre, the same as image and mask, so that the two can be compared."""
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, (30, 20), (12, 6), 25, 0, 360, 255, -1)
    return np.stack([mask] * 3, axis=-1), mask


@settings(deadline=None)
@given(st.sampled_from(sorted(PROTOCOLS)), st.integers(1, 2), st.integers(0, 2**64 - 1))
def test_image_and_mask_move_together(protocol, seed, sample_seed):
    image, mask = transform_of(protocol, seed)(*shape_pair(), sample_seed)
    assert image.shape == (48, 48, 3)
    assert mask.shape == (48, 48)
    assert set(np.unique(mask)) <= {0, 255}
    if protocol == "paper":
        np.testing.assert_array_equal(image[..., 0], mask)
    else:  # the image is bilinear, the mask nearest: they agree at every half
        assert ((image[..., 0] >= 128) != (mask > 0)).mean() < 0.02
        assert abs(float(image[..., 0].sum()) - float(mask.sum())) < 0.06 * 255 * (mask > 0).sum()


def outcomes(transform, count=1200):
    """How often each of the eight combinations of the three draws occurred, by its pixels."""
    image, mask = shape_pair()
    seen: dict[bytes, int] = {}
    for sample_seed in range(count):
        done = transform(image, mask, sample_seed)[1].tobytes()
        seen[done] = seen.get(done, 0) + 1
    return np.array(sorted(seen.values()))


def test_the_three_draws_are_independent_and_even():
    """One angle leaves 2 x 2 x 2 outcomes, each an eighth of the time (the draws do not share)."""
    counts = outcomes(augmentation(PAPER, 7))
    assert len(counts) == 8
    assert counts.min() > 1200 / 8 - 5 * (1200 / 8 * 7 / 8) ** 0.5
    assert counts.max() < 1200 / 8 + 5 * (1200 / 8 * 7 / 8) ** 0.5


def test_fresh_angles_differ_from_sample_to_sample():
    assert len(outcomes(augmentation(SOUND, 7), 200)) > 70


def test_a_paper_run_has_one_angle_that_follows_from_its_seed():
    angles = [run_angle(seed) for seed in range(50)]
    assert len(set(angles)) == 50
    assert 0 <= min(angles) < 90
    assert 270 < max(angles) <= 360
    first, again, other = (augmentation(PAPER, seed) for seed in (1, 1, 2))
    same = [
        np.array_equal(first(*shape_pair(), s)[1], again(*shape_pair(), s)[1]) for s in range(20)
    ]
    differ = [
        np.array_equal(first(*shape_pair(), s)[1], other(*shape_pair(), s)[1]) for s in range(20)
    ]
    assert all(same)
    assert not all(differ)


def test_settings_say_how_often_and_how_far():
    never = Augmentation(horizontal_flip=0, vertical_flip=0, rotation=0)
    assert len(outcomes(augmentation(SOUND, 7, never), 50)) == 1
    mirrored = replace(never, horizontal_flip=1)
    image, mask = shape_pair()
    for sample in range(5):
        got = augmentation(SOUND, 7, mirrored)(image, mask, sample)
        assert np.array_equal(got[0], image[:, ::-1])
        assert np.array_equal(got[1], mask[:, ::-1])
    turned = replace(never, rotation=1, rotation_limit=5.0)
    corner = np.zeros((101, 101), np.uint8)
    corner[:50, :50] = 255
    for sample in range(20):  # by at most 5 degrees: the axis moves by 50 tan 5 = 4.4 px
        got = augmentation(SOUND, 7, turned)(np.dstack([corner] * 3), corner, sample)[1]
        assert got[20:40, 20:40].all()
        assert not got[60:, 60:].any()
    assert abs(run_angle(3, (-5, 5))) <= 5
    assert run_angle(3) == run_angle(3, (0, 360))


def test_rotation_keeps_the_frame_and_fills_with_zeros():
    white, mask = np.full((40, 40, 3), 200, np.uint8), np.full((40, 40), 255, np.uint8)
    transform = augmentation(SOUND, 0)
    results = [transform(white, mask, s) for s in range(60)]
    cut = [image for image, _ in results if image[0, 0, 0] == 0]
    assert cut
    assert all((image[15:25, 15:25] == 200).all() for image, _ in results)
    assert all(
        (m[image[..., 0] == 0] == 0).mean() > 0.9 for image, m in results if image.min() == 0
    )


def test_augmentation_leaves_the_stored_arrays_alone():
    image, mask = shape_pair()
    before = image.copy(), mask.copy()
    for sample_seed in range(20):
        transform_of("paper", 1)(image, mask, sample_seed)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@given(
    st.sets(st.text("abc0123", min_size=1), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.data(),
)
def test_held_out_parts_the_ids_whatever_their_order(ids, fraction, data):
    ids = sorted(ids)
    train, aside = held_out(ids, fraction)
    assert sorted(train + aside) == list(range(len(ids)))
    assert len(train) >= 1
    assert len(aside) == min(max(1, round(fraction * len(ids))), len(ids) - 1)
    shuffled = data.draw(st.permutations(ids))
    assert {shuffled[i] for i in held_out(shuffled, fraction)[1]} == {ids[i] for i in aside}


def test_held_out_does_not_follow_any_seed_of_the_run(made):
    ids = [f"ISIC_{i:07d}" for i in range(1500)]
    first = held_out(ids)
    for seed in (0, 1):
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed)
        assert held_out(ids) == first
    assert len(first[1]) == 150
    assert np.mean(first[1]) == pytest.approx(750, abs=150)  # spread over all of them


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.1), (10, 0.0), (10, 1.0)])
def test_an_impossible_part_is_refused(count, fraction):
    with pytest.raises(InputError, match=f"cannot hold out {fraction} of {count}"):
        held_out([str(i) for i in range(count)], fraction)
