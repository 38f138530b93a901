"""Segmentation of arrays and of files: geometry, averaging, and the files on disk."""

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from vmunet import VMUNet
from vmunet.data.images import read_rgb
from vmunet.data.preprocess import KEPT, write_arrays
from vmunet.errors import InputError
from vmunet.inference.ensemble import find_weights, load_members
from vmunet.inference.files import IMAGES, draw_overlay, find_inputs, write_image
from vmunet.inference.images import segment, segment_folder
from vmunet.protocols import PROTOCOLS
from vmunet.weights.checkpoints import save_checkpoint

METADATA = {"normalisation": "minmax", "size": 64, "protocol": "paper"}


def tiny(seed: int, **arguments) -> VMUNet:
    """A VM-UNet of the smallest useful size whose logits vary over the image."""
    torch.manual_seed(seed)
    blocks = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    model = VMUNet(dims=(8, 16, 32, 64), **blocks, **arguments).eval()
    with torch.no_grad():
        model.final_conv.weight *= 5
    return model


class Bright(nn.Module):
    """Predicts a lesion if the red channel is above mid-grey; remembers its inputs."""

    def __init__(self, left: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.left = left
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        self.seen.append(images)
        logits = (images[:, :1] - 127.5) * self.scale
        if self.left:  # a model that is not symmetric: blind on the right
            logits[..., images.shape[-1] // 2 :] = -50.0
        return logits


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def with_square(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((height, width), dtype=bool)
    truth[height // 5 : height // 2, width // 3 : width // 2] = True
    return np.where(truth, np.uint8(230), np.uint8(20))[..., None].repeat(3, axis=2), truth


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder of two seeds: <seed>/weights.safetensors."""
    folder = tmp_path_factory.mktemp("cell")
    for seed in (1, 2):
        (folder / str(seed)).mkdir()
        save_checkpoint(folder / str(seed) / "weights.safetensors", tiny(seed), METADATA)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Folder with two images of odd sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "b.png"), noise(61, 47, 1))
    cv2.imwrite(str(folder / "a.jpg"), noise(33, 90, 2))
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- one array


@pytest.mark.parametrize("shape", [(37, 91), (64, 64), (1, 1), (5, 200)])
@pytest.mark.parametrize("resize", ["bilinear", "area"])
def test_probabilities_have_the_image_s_own_size(shape, resize):
    probability = segment([tiny(0)], noise(*shape), 64, resize)
    assert probability.shape == shape
    assert probability.dtype == np.float32
    assert 0 <= probability.min() <= probability.max() <= 1


@pytest.mark.parametrize("size", [64, 96, 80, 33])
@pytest.mark.parametrize("shape", [(301, 157), (90, 211)])
def test_a_lesion_stays_in_its_place(shape, size):
    image, truth = with_square(*shape)
    mask = segment([Bright()], image, size, "area") >= 0.5
    for axis in (0, 1):
        edges, true_edges = (
            np.nonzero(mask_or_truth.any(axis=1 - axis))[0][[0, -1]]
            for mask_or_truth in (mask, truth)
        )
        pixel = shape[axis] / size  # a pixel of the square, in pixels of the image
        assert np.abs(edges - true_edges).max() <= max(1, pixel)


def test_sizes_between_multiples_of_32_are_padded_for_the_model_and_cropped():
    model = Bright()
    image, _ = with_square(40, 40)
    probability = segment([model], image, 40, "bilinear")
    assert [images.shape for images in model.seen] == [(1, 3, 64, 64)]
    expected = 1 / (1 + np.exp(-np.where(image[..., 0] > 100, 127.5, -127.5) * 0.5))
    np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_the_model_sees_what_the_preprocessed_arrays_hold(tmp_path):
    raw = tmp_path / "raw"
    for name in ("images", "masks"):
        (raw / name).mkdir(parents=True)
    for key in ("a", "b"):
        cv2.imwrite(str(raw / "images" / f"{key}.jpg"), noise(123, 201))
        cv2.imwrite(str(raw / "masks" / f"{key}.png"), np.zeros((123, 201), np.uint8))
    manifest = dict.fromkeys(KEPT, 0) | {"train": ["a"], "test": ["b"], "archives": []}
    (raw / "manifest.json").write_text(json.dumps(manifest))
    write_arrays(raw, tmp_path / "arrays", "view", 64, list(PROTOCOLS.values()))
    for name, protocol in PROTOCOLS.items():
        model = Bright()
        segment([model], read_rgb(raw / "images" / "b.jpg")[0], 64, protocol.resize)
        (stored,) = np.load(tmp_path / "arrays" / name / "test" / "images.npy")
        np.testing.assert_array_equal(model.seen[0][0].permute(1, 2, 0), stored)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [64, 48])
def test_tta_turns_with_the_image(axis, size):
    image, models = noise(51, 83), [tiny(3)]
    flipped = np.ascontiguousarray(np.flip(image, axis))

    def difference(tta):
        straight = segment(models, image, size, "bilinear", tta)
        turned = segment(models, flipped, size, "bilinear", tta)
        return np.abs(np.flip(turned, axis) - straight).max()

    assert difference(tta=True) < 2e-4
    assert difference(tta=False) > 1e-2


def test_tta_is_the_mean_over_the_four_mirrorings():
    image = with_square(64, 64)[0]
    views = [(), (0,), (1,), (0, 1)]
    singles = [
        np.flip(segment([Bright(left=True)], np.flip(image, v).copy(), 64, "bilinear"), v)
        for v in views
    ]
    together = segment([Bright(left=True)], image, 64, "bilinear", tta=True)
    np.testing.assert_allclose(together, np.mean(singles, axis=0), atol=1e-6)
    assert np.abs(together - singles[0]).max() > 0.4


def test_ensemble_is_the_mean_of_its_members():
    image = noise(50, 70)
    one, two = (segment([tiny(seed)], image, 64, "area") for seed in (1, 2))
    both = segment([tiny(1), tiny(2)], image, 64, "area")
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
    assert np.abs(one - two).max() > 1e-2


def test_a_model_in_training_is_used_without_dropout_and_left_in_training():
    model = tiny(0, drop_path_rate=0.9)
    expected = segment([model], noise(40, 40), 64, "area")
    model.train()
    np.testing.assert_array_equal(segment([model], noise(40, 40), 64, "area"), expected)
    assert model.training


@pytest.mark.parametrize(
    ("image", "size", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), 64, "expected uint8"),
        (np.zeros((9, 9), np.uint8), 64, "expected uint8"),
        (np.zeros((0, 9, 3), np.uint8), 64, "expected uint8"),
        (np.zeros((9, 9, 3), np.uint8), 31, "32 px or more"),
    ],
)
def test_wrong_arguments_are_named(image, size, message):
    with pytest.raises(InputError, match=message):
        segment([Bright()], image, size, "area")


def test_an_image_of_one_colour_gives_a_finite_answer():
    probability = segment([tiny(0)], np.full((20, 30, 3), 128, np.uint8), 64, "area")
    assert np.isfinite(probability).all()


def test_models_that_cannot_answer_are_refused():
    with pytest.raises(InputError, match="9 channels"):
        segment([tiny(0, num_classes=9)], noise(32, 32), 64, "area")
    with pytest.raises(InputError, match="one or more"):
        segment([], noise(32, 32), 64, "area")
    broken = Bright()
    nn.init.constant_(broken.scale, float("nan"))
    with pytest.raises(InputError, match="NaN"):
        segment([broken], noise(32, 32), 64, "area")


# --- weights


def test_weights_are_a_file_a_run_or_a_folder_of_runs(weights, tmp_path):
    file = weights / "1" / "weights.safetensors"
    assert find_weights(file) == find_weights(weights / "1") == [file]
    assert find_weights(weights) == [file, weights / "2" / "weights.safetensors"]
    # a file that is named twice is one member
    assert len(load_members([weights, file])) == 2
    with pytest.raises(InputError, match="no such weights"):
        find_weights(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no weights\.safetensors"):
        find_weights(tmp_path)


def test_members_keep_their_own_size_and_resizing(tmp_path):
    path = tmp_path / "sound.safetensors"
    save_checkpoint(path, tiny(0), METADATA | {"size": 96, "protocol": "sound"})
    (member,) = load_members([path])
    assert (member.size, member.resize) == (96, "area")
    (member,) = load_members([path], size=40)
    assert member.size == 40


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "cuda:", "meta"])
def test_a_device_that_is_not_there_is_refused(weights, device):
    with pytest.raises(InputError, match=f"device '{device}'"):
        load_members([weights], device)


@pytest.mark.parametrize(
    ("arguments", "metadata"),
    [({"num_classes": 9}, {}), ({"in_channels": 1}, {}), ({}, {"normalisation": "ct"})],
)
def test_weights_for_something_else_are_refused(tmp_path, arguments, metadata):
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, tiny(0, **arguments), METADATA | metadata)
    with pytest.raises(InputError, match=r"other.*(RGB lesion model|number of classes)"):
        load_members([path])


def test_an_unknown_protocol_is_refused(tmp_path):
    path = tmp_path / "newer.safetensors"
    save_checkpoint(path, tiny(0), METADATA | {"protocol": "third"})
    with pytest.raises(InputError, match=r"newer\.safetensors.*'third'; known: paper, sound"):
        load_members([path])


# --- files


def test_files_and_table_agree_with_segment(weights, photos, tmp_path):
    out = tmp_path / "deep" / "out"
    done = segment_folder([weights], [photos], out, threshold=0.4, probabilities=True, overlay=True)
    stems = ["a", "b"]
    kinds = ["mask.png", "overlay.jpg", "probability.png"]
    assert sorted(contents(out)) == sorted(
        ["predictions.csv", *(f"{stem}_{kind}" for stem in stems for kind in kinds)]
    )
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert [row["image"] for row in rows] == ["a.jpg", "b.png"]
    for row, prediction in zip(rows, done.predictions, strict=True):
        file = photos / row["image"]
        image = cv2.imread(str(file))[..., ::-1].copy()
        expected = segment([tiny(1), tiny(2)], image, 64, "bilinear")
        stored = cv2.imread(str(out / f"{file.stem}_probability.png"), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(out / f"{file.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored / 65535, expected, atol=1e-5)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, np.where(expected >= 0.4, 255, 0))
        assert cv2.imread(str(out / f"{file.stem}_overlay.jpg")).shape == image.shape
        assert (int(row["height"]), int(row["width"])) == image.shape[:2]
        assert float(row["lesion_fraction"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
        assert prediction.lesion_fraction == pytest.approx((mask > 0).mean())
        inside = expected[mask > 0].mean() if mask.any() else None
        assert prediction.mean_probability == (inside and pytest.approx(inside, abs=1e-5))


def test_members_of_different_sizes_are_averaged_each_at_its_own(weights, photos, tmp_path):
    large = tmp_path / "large.safetensors"
    save_checkpoint(large, tiny(5), METADATA | {"size": 96, "protocol": "sound"})
    small = weights / "1"
    segment_folder([small, large], [photos], tmp_path / "out", probabilities=True)
    image = cv2.imread(str(photos / "b.png"))[..., ::-1].copy()
    parts = segment([tiny(1)], image, 64, "bilinear"), segment([tiny(5)], image, 96, "area")
    stored = cv2.imread(str(tmp_path / "out" / "b_probability.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(stored / 65535, np.mean(parts, axis=0), atol=1e-5)


def test_a_second_run_sees_the_same_images_and_writes_the_same_bytes(weights, photos):
    out = photos / "masks"
    arguments = {"probabilities": True, "overlay": True, "tta": True}
    segment_folder([weights / "1"], [photos], out, **arguments)
    first = contents(out)
    segment_folder([weights / "1"], [photos], out, **arguments)
    assert contents(out) == first
    assert sorted(contents_of_images(photos)) == ["a.jpg", "b.png"]


def contents_of_images(folder):
    return [file.name for file in find_inputs([folder], IMAGES)[0]]


def test_earlier_outputs_and_foreign_masks_are_left_out(photos):
    for name in ("a_superpixels.png", "a_Segmentation.PNG", "b_mask.png", ".hidden.jpg", "x.txt"):
        (photos / name).write_bytes(b"")
    (photos / "folder.png").mkdir()
    images, skipped = find_inputs([photos], IMAGES)
    assert [file.name for file in images] == ["a.jpg", "b.png"]
    assert sorted(f.name for f in skipped) == [
        "a_Segmentation.PNG",
        "a_superpixels.png",
        "b_mask.png",
    ]
    # a file named twice counts once
    assert find_inputs([photos, photos / "a.jpg"], IMAGES) == (images, skipped)


@pytest.mark.parametrize("kind", ["grey", "sixteen bits", "alpha"])
def test_other_pixel_layouts_are_read(weights, tmp_path, kind):
    image = noise(40, 30)
    pixels = {
        "grey": image[..., 0],
        "sixteen bits": image.astype(np.uint16) * 257,
        "alpha": np.dstack([image, np.full((40, 30), 255, np.uint8)]),
    }[kind]
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    plain = image[..., :1].repeat(3, axis=2) if kind == "grey" else image
    segment_folder([weights / "1"], [tmp_path / "x.png"], tmp_path / "out", probabilities=True)
    stored = cv2.imread(str(tmp_path / "out" / "x_probability.png"), cv2.IMREAD_UNCHANGED)
    expected = segment([tiny(1)], plain[..., ::-1].copy(), 64, "bilinear")
    np.testing.assert_allclose(stored / 65535, expected, atol=1e-3)


def test_the_mask_has_the_stored_pixel_grid_whatever_the_orientation_tag(weights, tmp_path):
    encoded = cv2.imencode(".jpg", noise(30, 50))[1].tobytes()
    # APP1 segment: Exif, big endian, one entry, tag 0x0112 (orientation) = 6 (turn by 90 degrees)
    tiff = bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")
    exif = b"Exif\0\0" + tiff
    tagged = encoded[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + encoded[2:]
    (tmp_path / "turned.jpg").write_bytes(tagged)
    assert cv2.imread(str(tmp_path / "turned.jpg")).shape == (50, 30, 3)  # the tag is understood
    segmented = segment_folder([weights / "1"], [tmp_path / "turned.jpg"], tmp_path / "out")
    assert segmented.turned == [tmp_path / "turned.jpg"]
    mask = cv2.imread(str(tmp_path / "out" / "turned_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (30, 50)


def test_an_unreadable_image_is_named_and_the_rest_is_segmented(weights, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"not an image")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"1 of 3 images.*broken\.jpg"):
        segment_folder([weights / "1"], [photos], out)
    assert sorted(contents(out)) == ["a_mask.png", "b_mask.png", "predictions.csv"]


def test_names_that_no_result_can_have_are_named_and_the_rest_is_segmented(
    weights, photos, tmp_path
):
    content = (photos / "a.jpg").read_bytes()
    (photos / f"{'m' * 250}.jpg").write_bytes(content)  # 255 bytes are a file system's limit
    Path(os.fsdecode(bytes(photos) + b"/L\xe4sion.jpg")).write_bytes(content)  # Latin-1
    out = tmp_path / "out"
    with pytest.raises(InputError) as error:
        segment_folder([weights / "1"], [photos], out)
    assert "2 of 4 images" in str(error.value)
    assert "mmm.jpg: its name has 254 characters, too many" in str(error.value)
    assert "L\\xe4sion.jpg: its name is not UTF-8" in str(error.value)
    assert sorted(contents(out)) == ["a_mask.png", "b_mask.png", "predictions.csv"]
    assert len((out / "predictions.csv").read_text().splitlines()) == 3


def test_the_table_is_whole_after_each_image(weights, photos, tmp_path, monkeypatch):
    """What a killed run leaves: the header and the rows of the images that were written."""
    out = tmp_path / "out"
    lengths = []

    def write(path, pixels, write=write_image):
        table = out / "predictions.csv"
        lengths.append(len(table.read_text().splitlines()) if table.exists() else 0)
        write(path, pixels)

    monkeypatch.setattr("vmunet.inference.images.write_image", write)
    segment_folder([weights / "1"], [photos], out)
    assert lengths == [0, 2]


def test_nothing_is_written_if_the_inputs_are_unusable(weights, photos, tmp_path):
    out = tmp_path / "out"
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    twin = tmp_path / "a.png"
    cv2.imwrite(str(twin), noise(8, 8))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    model = weights / "1"

    def refused(message, images, weights=(model,), out=out, **arguments):
        with pytest.raises(InputError, match=message):
            segment_folder(weights, images, out, **arguments)
        assert not out.exists() or out in (photos, bad)

    refused(r"1 of 1 images.*bad\.jpg", [bad])
    refused(r"a\.jpg and .*a\.png would both write a_mask\.png", [photos, twin])
    refused("no such image or folder", [tmp_path / "missing.jpg"])
    refused("not an image", [tmp_path / "notes.txt"])
    refused("no images", [tmp_path / "empty"])
    refused("threshold", [photos], threshold=1.0)
    refused("threshold", [photos], threshold=float("nan"))
    refused("size 16", [photos], size=16)
    refused("no such weights", [photos], weights=[tmp_path / "missing.safetensors"])
    before = contents(photos)
    refused("holds the images themselves", [photos], out=photos)
    assert contents(photos) == before
    refused("is a file; give a folder for the output", [photos], out=bad)


def test_no_partial_file_stays_if_writing_fails(weights, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    segment_folder([weights / "1"], [photos], out)
    before = contents(out)

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        segment_folder([weights / "2"], [photos], out)
    after = contents(out)
    # the old masks are complete; the table, which no longer describes the folder, is gone
    assert after == {name: old for name, old in before.items() if name != "predictions.csv"}


def test_overlay_marks_the_mask_and_nothing_far_from_it():
    image, mask = noise(200, 300), np.zeros((200, 300), bool)
    np.testing.assert_array_equal(draw_overlay(image, mask), image)
    mask[50:100, 60:200] = True
    drawn = draw_overlay(image, mask)
    changed = (drawn != image).any(axis=2)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert changed[mask].mean() > 0.95
    assert not changed[~near].any()
