"""Segmentation of CT volumes: arrays against the plain published loop, and the files on disk."""

import csv
import os
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom
from torch import nn

from vmunet import VMUNet
from vmunet.data.nifti import check_same_grid, read_labels, read_volume
from vmunet.data.slices import resize_labels, resize_slice, window_ct
from vmunet.drawing.sheets.images import PALETTE, PAPER
from vmunet.drawing.sheets.volumes import choose_slices, draw_sheet, tile_size
from vmunet.errors import InputError
from vmunet.inference.ensemble import load_members
from vmunet.inference.files import VOLUMES, find_inputs, stem_of
from vmunet.inference.volumes import (
    is_volume_model,
    load_volume_models,
    segment_volume,
    segment_volumes,
)
from vmunet.weights.checkpoints import save_checkpoint

WINDOW = (-125.0, 275.0)
ORGANS = ["aorta", "gallbladder", "left kidney"]
METADATA = {
    "normalisation": "window",
    "window": list(WINDOW),
    "size": 64,
    "classes": ORGANS,
    "protocol": "paper",
}
CT = Path(os.environ.get("VMUNET_MIRROR", "/nowhere")) / "ct"


def tiny(seed: int, num_classes: int = 4, **arguments) -> VMUNet:
    """A small VM-UNet whose labels vary over the slice."""
    torch.manual_seed(seed)
    blocks = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    model = VMUNet(dims=(8, 16, 32, 64), num_classes=num_classes, **blocks, **arguments).eval()
    with torch.no_grad():
        model.final_conv.weight *= 5
    return model


class Thresholds(nn.Module):
    """Label 1 above a third of the window, 2 above two thirds; remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(30.0))
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        self.seen.append(images)
        return torch.cat([k * self.scale * (images - k / 6 - 1 / 6) for k in (0, 1, 2)], dim=1)


class Always(nn.Module):
    """The same probabilities everywhere."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, images):
        batch, _, height, width = images.shape
        return self.logits[None, :, None, None].expand(batch, -1, height, width)


def scan(depth: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes, -500..700 HU."""
    coarse = np.random.default_rng(seed).uniform(-500, 700, (depth, 5, 6)).astype(np.float32)
    return np.stack([cv2.resize(s, (width, height), interpolation=cv2.INTER_CUBIC) for s in coarse])


def published(model: nn.Module, volume: np.ndarray, size: int) -> np.ndarray:
    """The published `test_single_volume` with its clipping before it, slice by slice."""
    prediction = np.zeros(volume.shape)
    for i, plane in enumerate((np.clip(volume, -125, 275) + 125) / 400):
        x, y = plane.shape
        if x != size or y != size:
            plane = zoom(plane, (size / x, size / y), order=3)
        batch = torch.from_numpy(plane)[None, None].float()
        with torch.no_grad():
            labels = torch.argmax(torch.softmax(model(batch), dim=1), dim=1).squeeze(0).numpy()
        if x != size or y != size:
            labels = zoom(labels, (x / size, y / size), order=0)
        prediction[i] = labels
    return prediction


# --- slices


def test_the_window_is_clipped_and_stretched() -> None:
    hu = np.array([-3000, -125, 75, 275, 3000], np.int16)
    windowed = window_ct(hu, *WINDOW)
    assert windowed.dtype == np.float32
    np.testing.assert_array_equal(windowed, np.float32([0, 0, 0.5, 1, 1]))
    np.testing.assert_array_equal(hu, [-3000, -125, 75, 275, 3000])  # the input is not changed
    for window in [(1, 1), (2, 1), (0, np.nan), (-np.inf, 0)]:
        with pytest.raises(InputError, match="window"):
            window_ct(hu, *window)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.sampled_from([32, 64]),
    how=st.sampled_from(["cubic", "area"]),
)
def test_slices_become_squares_and_labels_come_back(height, width, size, how) -> None:
    plane = scan(1, height, width)[0]
    square = resize_slice(plane, size, how)
    assert square.shape == (size, size)
    assert square.dtype == np.float32
    labels = np.random.default_rng(0).integers(0, 4, (size, size)).astype(np.uint8)
    back = resize_labels(labels, (height, width), how)
    assert back.shape == (height, width)
    assert back.dtype == np.uint8
    assert set(np.unique(back)) <= set(np.unique(labels))


def test_cubic_is_scipy_s_zoom_and_area_keeps_the_mean() -> None:
    plane = scan(1, 96, 160)[0]
    np.testing.assert_array_equal(
        resize_slice(plane, 32, "cubic"), zoom(plane, (32 / 96, 32 / 160), order=3)
    )
    blocks = plane.reshape(32, 3, 32, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_slice(plane, 32, "area"), blocks, rtol=1e-4, atol=1e-2)
    labels = np.random.default_rng(0).integers(0, 9, (32, 32)).astype(np.uint8)
    np.testing.assert_array_equal(resize_labels(labels, (96, 160)), zoom(labels, (3, 5), order=0))
    np.testing.assert_array_equal(
        resize_labels(labels, (96, 160), "area"), labels.repeat(3, 0).repeat(5, 1)
    )
    assert resize_slice(plane[:32, :32], 32, "cubic") is not None
    for call in (lambda: resize_slice(plane, 32, "no"), lambda: resize_labels(labels, (9, 9), "")):
        with pytest.raises(InputError, match="expected cubic or area"):
            call()


# --- one array


@pytest.mark.parametrize("shape", [(5, 70, 45), (1, 64, 64), (3, 33, 128)])
def test_it_is_the_published_loop(shape) -> None:
    volume, model = scan(*shape), tiny(0)
    labels = segment_volume([model], volume, 64, "cubic", WINDOW)
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, published(model, volume, 64))


@pytest.mark.parametrize("resize", ["cubic", "area"])
def test_the_batch_does_not_matter(resize) -> None:
    volume, models = scan(11, 50, 70), [tiny(1), tiny(2)]
    first, *others = (
        segment_volume(models, volume, 64, resize, WINDOW, batch_size=n) for n in (1, 5, 11, 24)
    )
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_slices_are_shown_in_batches() -> None:
    model = Thresholds()
    segment_volume([model], scan(7, 40, 50), 32, "area", WINDOW, batch_size=3)
    assert [images.shape for images in model.seen] == [(n, 1, 32, 32) for n in (3, 3, 1)]
    assert all(0 <= images.min() <= images.max() <= 1 for images in model.seen)


@pytest.mark.parametrize("resize", ["cubic", "area"])
@pytest.mark.parametrize("shape", [(90, 61), (64, 64), (25, 40)])
def test_an_organ_stays_in_its_place(shape, resize) -> None:
    volume = np.full((3, *shape), -125, np.int16)
    top, bottom, left, right = shape[0] // 5, shape[0] // 2, shape[1] // 3, shape[1] // 2
    volume[1, top:bottom, left:right] = 275
    labels = segment_volume([Thresholds()], volume, 64, resize, WINDOW)
    assert not labels[[0, 2]].any()
    for axis, edges in enumerate(((top, bottom - 1), (left, right - 1))):
        label_edges = np.nonzero((labels[1] == 2).any(axis=1 - axis))[0][[0, -1]]
        assert np.abs(label_edges - edges).max() <= max(1, shape[axis] / 64)


def test_probabilities_are_averaged_not_labels() -> None:
    volume = scan(2, 32, 32)
    weak, strong = Always(0.4, 0.6, 0.0001), Always(0.9, 0.05, 0.05)
    assert (segment_volume([weak], volume, 32, "area", WINDOW) == 1).all()
    # two of three vote for 1, and the mean is for 0
    assert not segment_volume([weak, weak, strong], volume, 32, "area", WINDOW).any()
    assert not segment_volume([strong, weak, weak], volume, 32, "area", WINDOW).any()


def test_a_model_of_one_channel_and_one_in_training_are_used(tmp_path) -> None:
    volume = scan(2, 40, 40)
    segment_volume([tiny(0, in_channels=1)], volume, 32, "area", WINDOW)
    model = tiny(0, drop_path_rate=0.9)
    expected = segment_volume([model], volume, 32, "area", WINDOW)
    model.train()
    np.testing.assert_array_equal(segment_volume([model], volume, 32, "area", WINDOW), expected)
    assert model.training


def test_wrong_arguments_are_named() -> None:
    volume, always = scan(2, 40, 40), (Always(0.5, 0.5),)

    def refused(message, models=always, volume=volume, size=32, **arguments):
        arguments = {"resize": "area", "window": WINDOW} | arguments
        with pytest.raises(InputError, match=message):
            segment_volume(models, volume, size, **arguments)

    refused("one or more", models=())
    refused(r"float32 \(40, 40\)", volume=volume[0])
    refused(r"\(0, 40, 40\)", volume=volume[:0])
    refused("complex64", volume=volume.astype(np.complex64))
    refused("size 0", size=0)
    refused("size 33: .*multiple of 32", size=33)
    refused("resize 'bilinear'", resize="bilinear")
    refused("window", window=(275, -125))
    refused("batch_size 0", batch_size=0)
    refused("1 classes", models=[Always(1.0)])
    refused("2 classes", models=[Always(0.5, 0.3, 0.2), Always(0.5, 0.5)])
    refused("NaN", models=[Always(float("nan"), 0.5)])
    for value in (np.nan, np.inf, -np.inf):
        broken = volume.copy()
        broken[1, 3, 4] = value
        refused("NaN or infinite", volume=broken)


# --- weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder of two seeds: <seed>/weights.safetensors."""
    folder = tmp_path_factory.mktemp("cell")
    for seed in (1, 2):
        (folder / str(seed)).mkdir()
        save_checkpoint(folder / str(seed) / "weights.safetensors", tiny(seed), METADATA)
    return folder


def saved(path: Path, model: VMUNet | None = None, **metadata) -> Path:
    kept = {name: value for name, value in (METADATA | metadata).items() if value is not None}
    save_checkpoint(path, model or tiny(0), kept)
    return path


def test_weights_name_their_settings(weights, tmp_path) -> None:
    models, setting = load_volume_models([weights])
    assert len(models) == 2
    assert (setting.size, setting.resize, setting.window) == (64, "cubic", WINDOW)
    assert setting.organs == tuple(ORGANS)
    sound = saved(tmp_path / "sound.safetensors", protocol="sound")
    assert load_volume_models([sound])[1].resize == "area"
    assert load_volume_models([sound], size=96)[1].size == 96
    assert is_volume_model(sound)
    lesions = saved(tmp_path / "lesions.safetensors", tiny(0, 1), normalisation="minmax")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(sound.read_bytes()[:100])
    for other in (lesions, cut, tmp_path / "missing.safetensors", tmp_path, tmp_path / "x.pth"):
        assert not is_volume_model(other)
    with pytest.raises(InputError, match=r"sound\.safetensors.*an RGB model of 3 classes"):
        load_members([sound])
    with pytest.raises(InputError, match=r"lesions\.safetensors.*'minmax'.*CT volumes"):
        load_volume_models([lesions])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"protocol": "third"}, "'third'; known: paper, sound"),
        ({"window": None}, "window"),
        ({"window": [1, 2, 3]}, "window"),
        ({"window": [275, -125]}, "window"),
        ({"window": "wide"}, "window"),
        ({"classes": None}, "classes"),
        ({"classes": ORGANS[:2]}, "2 organs.*4 classes"),
        ({"size": 100}, "size 100.*multiple of 32"),
        ({"size": "large"}, "size"),
    ],
)
def test_weights_that_do_not_describe_themselves_are_refused(tmp_path, metadata, message) -> None:
    path = saved(tmp_path / "bad.safetensors", **metadata)
    with pytest.raises(InputError, match=rf"bad\.safetensors.*{message}"):
        load_volume_models([path])


def test_models_of_an_ensemble_have_the_same_input_and_classes(weights, tmp_path) -> None:
    for name, value in {
        "size": 96,
        "window": [-100, 200],
        "classes": ["a", "b", "c"],
        "protocol": "sound",
    }.items():
        other = saved(tmp_path / "other.safetensors", **{name: value})
        with pytest.raises(InputError, match=r"cannot be averaged.*differ"):
            load_volume_models([weights, other])
    assert len(load_volume_models([weights, saved(tmp_path / "o.safetensors")])[0]) == 3
    with pytest.raises(InputError, match="size 50"):
        load_volume_models([weights], size=50)


# --- files


def store(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """An array (depth, height, width) as a file whose axes are left, posterior, superior."""
    lps = np.diag([-2.0, -2.0, 5.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16).transpose(2, 1, 0), lps), path)
    return path


@pytest.fixture
def scans(tmp_path):
    """Folder with two scans of odd shapes, one of a single slice."""
    folder = tmp_path / "scans"
    folder.mkdir()
    store(folder / "b.nii", scan(1, 47, 61, 1))
    store(folder / "a.nii.gz", scan(5, 33, 50, 2))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_files_and_table_agree_with_segment_volume(weights, scans, tmp_path) -> None:
    out = tmp_path / "deep" / "out"
    done = segment_volumes([weights], [scans], out, overlay=True)
    assert done.volumes == 2
    kinds = ["labels.nii.gz", "overlay.png"]
    assert sorted(contents(out)) == sorted(
        ["predictions.csv", *(f"{stem}_{kind}" for stem in "ab" for kind in kinds)]
    )
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert list(rows[0]) == ["volume", "organ", "voxels", "ml"]
    expected_rows = []
    for name in ("a.nii.gz", "b.nii"):
        source = read_volume(scans / name)
        labels = read_labels(out / f"{name[0]}_labels.nii.gz", range(4))
        check_same_grid(source, labels)
        expected = segment_volume([tiny(1), tiny(2)], source.voxels, 64, "cubic", WINDOW)
        np.testing.assert_array_equal(labels.voxels, expected)
        for i, organ in enumerate(ORGANS):
            voxels = int((expected == i + 1).sum())
            expected_rows.append((name, organ, str(voxels), f"{voxels * 0.02:.3f}"))
    assert [tuple(row.values()) for row in rows] == expected_rows
    assert [p.voxels for p in done.predictions] == [int(row[2]) for row in expected_rows]


def test_a_second_run_sees_the_same_volumes_and_writes_the_same_bytes(weights, scans) -> None:
    out = scans / "labels"
    segment_volumes([weights / "1"], [scans], out, overlay=True)
    first = contents(out)
    segment_volumes([weights / "1"], [scans], out, overlay=True, batch_size=2)
    assert contents(out) == first


def test_label_maps_are_left_out(scans) -> None:
    for name in ("a_labels.nii.gz", "b_SEG.nii", "label0001.nii.gz", ".hidden.nii", "x.txt"):
        (scans / name).write_bytes(b"")
    (scans / "folder.nii").mkdir()
    volumes, skipped = find_inputs([scans], VOLUMES)
    assert [file.name for file in volumes] == ["a.nii.gz", "b.nii"]
    assert sorted(f.name for f in skipped) == ["a_labels.nii.gz", "b_SEG.nii", "label0001.nii.gz"]
    assert find_inputs([scans, scans / "b.nii"], VOLUMES) == (volumes, skipped)


def test_an_unreadable_volume_is_named_and_the_rest_is_segmented(weights, scans, tmp_path) -> None:
    (scans / "broken.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:200])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"1 of 3 volumes.*broken\.nii\.gz"):
        segment_volumes([weights / "1"], [scans], out)
    assert sorted(contents(out)) == ["a_labels.nii.gz", "b_labels.nii.gz", "predictions.csv"]


def test_nothing_is_written_if_the_inputs_are_unusable(weights, scans, tmp_path) -> None:
    out = tmp_path / "out"
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"not a volume")
    twin = store(tmp_path / "a.nii", scan(1, 8, 8))
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    model = weights / "1"

    def refused(message, volumes, weights=(model,), out=out, **arguments):
        with pytest.raises(InputError, match=message):
            segment_volumes(weights, volumes, out, **arguments)
        assert not out.exists() or out in (scans, bad)

    refused(r"1 of 1 volumes.*bad\.nii", [bad])
    refused(r"a\.nii\.gz and .*a\.nii would both write a_labels\.nii\.gz", [scans, twin])
    refused("no such volume or folder", [tmp_path / "missing.nii"])
    refused("not a CT volume", [tmp_path / "photo.jpg"])
    refused("no CT volumes", [tmp_path / "empty"])
    refused("size 50", [scans], size=50)
    refused("no such weights", [scans], weights=[tmp_path / "missing.safetensors"])
    before = contents(scans)
    refused("holds the volumes themselves", [scans], out=scans)
    assert contents(scans) == before
    refused("is a file; give a folder for the output", [scans], out=bad)


# --- the sheet


def test_slices_are_chosen_evenly() -> None:
    assert choose_slices(1) == [0]
    assert choose_slices(12) == list(range(12))
    chosen = choose_slices(147)
    assert len(chosen) == 12
    assert set(np.diff(chosen)) <= {12, 13}
    assert chosen[0] == 146 - chosen[-1]


def test_slices_are_drawn_as_they_lie_in_the_patient() -> None:
    assert tile_size((512, 512), (0.75, 0.75)) == (300, 300)
    assert tile_size((100, 200), (2.0, 1.0)) == (300, 300)
    assert tile_size((100, 200), (1.0, 1.0)) == (150, 300)
    assert tile_size((200, 100), (1.0, 1.0)) == (300, 150)


def test_only_organs_on_the_slice_are_outlined() -> None:
    volume = np.full((1, 60, 60), -125.0)
    labels = np.zeros((1, 60, 60), np.uint8)
    labels[0, 20:40, 20:40] = 2
    organs = [f"organ {i}" for i in range(13)]

    def coloured(labels):
        sheet = draw_sheet(volume, labels, organs, WINDOW, (5, 1, 1), "x")
        tile = sheet[-(300 + 22 + 8) : -(22 + 8), 8:308].reshape(-1, 3)
        return {tuple(c) for c in np.unique(tile, axis=0).tolist()} - {(0, 0, 0)}

    assert coloured(np.zeros_like(labels)) == set()
    assert coloured(labels) == {PALETTE[1]}
    assert len(set(PALETTE)) == len(PALETTE) == 8
    assert PAPER == (255, 255, 255)


@pytest.mark.skipif(not CT.is_dir(), reason="VMUNET_MIRROR holds no ct/")
def test_a_real_scan_keeps_its_grid(tmp_path) -> None:
    model = saved(tmp_path / "w.safetensors", tiny(0, 9), classes=list("abcdefgh"), size=128)
    done = segment_volumes([model], [CT], tmp_path / "out")
    assert [file.name for file in done.skipped] == ["label0001.nii.gz"]
    before = nibabel.load(CT / "img0001.nii.gz")
    after = nibabel.load(tmp_path / "out" / "img0001_labels.nii.gz")
    assert before.shape == after.shape
    np.testing.assert_array_equal(before.affine, after.affine)


def test_a_published_synapse_checkpoint_is_a_volume_model(tmp_path: Path) -> None:
    path = tmp_path / "synapse.pth"
    model = VMUNet(dims=(8, 16, 32, 64), num_classes=9)
    torch.save({f"vmunet.{name}": tensor for name, tensor in model.state_dict().items()}, path)
    assert is_volume_model(path)
    (loaded,), setting = load_volume_models([path])
    assert (setting.size, setting.resize, setting.window) == (224, "cubic", WINDOW)
    assert setting.organs[0] == "aorta"
    assert len(setting.organs) == 8
    torch.testing.assert_close(loaded.state_dict(), dict(model.state_dict()))
    torch.save(VMUNet(dims=(8, 16, 32, 64)).state_dict(), path)
    assert not is_volume_model(path)


def test_without_a_window_each_volume_has_its_own(scans, tmp_path) -> None:
    """Metadata as of `own_volumes`, for volumes without a unit."""
    path = saved(tmp_path / "mr.safetensors", normalisation="percentiles", window=None)
    assert is_volume_model(path)
    (model,), setting = load_volume_models([path])
    assert setting.window is None
    segment_volumes([path], [scans], tmp_path / "out", overlay=True)
    for scan in find_inputs([scans], VOLUMES)[0]:
        volume = read_volume(scan)
        low, high = np.percentile(volume.voxels, [0.5, 99.5])
        expected = segment_volume([model], volume.voxels, 64, "cubic", (low, high))
        written = read_labels(tmp_path / "out" / f"{stem_of(scan)}_labels.nii.gz", range(4))
        assert np.array_equal(written.voxels, expected)
