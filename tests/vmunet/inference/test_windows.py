"""Volumes by models of three dimensions: windows against the whole volume, files, and mistakes."""

import builtins
import sys

import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.helpers.tiny_3d import NAME, PLACE, Tiny3D, made
from tests.vmunet.inference.test_volumes import scan
from vmunet import InputError, Predictor
from vmunet.cli import main
from vmunet.data.slices import resize_labels, resize_slice, window_ct
from vmunet.inference.volumes import load_volume_models, segment_volume
from vmunet.inference.windows import DEEP, blocks, window_probabilities
from vmunet.models import build, places
from vmunet.weights.checkpoints import save_checkpoint

WINDOW = (-125.0, 275.0)
CT = {
    "normalisation": "window",
    "window": list(WINDOW),
    "size": 32,
    "classes": ["aorta", "liver"],
    "protocol": "sound",
    "patch": [16, 32, 32],
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(places.PLACES, NAME, PLACE)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "ct.safetensors"
    save_checkpoint(path, made(1), CT)
    return path


def whole(model: nn.Module, volume: np.ndarray, size: int) -> torch.Tensor:
    """The probabilities of one pass over a volume, (classes, depth, size, size)."""
    slices = np.stack([resize_slice(window_ct(plane, *WINDOW), size, "area") for plane in volume])
    with torch.no_grad():
        return model(torch.from_numpy(slices)[None, None]).softmax(1)[0]


@pytest.mark.parametrize("shape", [(16, 32, 32), (16, 40, 27)])
def test_a_volume_of_one_window_is_one_pass(shape):
    volume, model = scan(*shape), made()
    labels = segment_volume([model], volume, 32, "area", WINDOW, patch=(16, 32, 32))
    expected = [
        resize_labels(plane.numpy().astype(np.uint8), shape[1:], "area")
        for plane in whole(model, volume, 32).argmax(0)
    ]
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(labels)) > 1


def test_a_short_volume_is_padded_in_the_middle_of_its_window():
    volume, model = scan(11, 32, 32), made()
    labels = segment_volume([model], volume, 32, "area", WINDOW, patch=(16, 32, 32))
    padded = np.pad(volume, ((2, 3), (0, 0), (0, 0)), constant_values=WINDOW[0])
    expected = whole(model, padded, 32).argmax(0)[2:13]
    np.testing.assert_array_equal(labels, expected)


def test_windows_overlap_and_their_middles_count_most():
    """Each window is given its own number as probability: the mean follows the Gaussians."""

    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = nn.Parameter(torch.zeros(1))

        def forward(self, windows):
            self.count.data += 1
            p = torch.full_like(windows, 0.1 * float(self.count))
            return torch.cat([p, 1 - p], 1).log()

    volume = torch.zeros(32, 16, 16)
    with torch.no_grad():
        ((planes,),) = [
            list(b) for b in window_probabilities([Numbered()], volume, (16, 16, 16), 1)
        ]
    along = planes[0, :, 8, 8]  # windows at 0, 8 and 16
    torch.testing.assert_close(along[:8], torch.full((8,), 0.1), atol=1e-6, rtol=0)
    torch.testing.assert_close(along[24:], torch.full((8,), 0.3), atol=1e-6, rtol=0)
    assert float(along[16]) == pytest.approx(0.2, abs=0.01)
    assert (along.diff() >= -1e-6).all()


@given(depth=st.integers(1, 900), side=st.sampled_from([16, 32, 48, 64]))
def test_blocks_hold_the_windows_of_the_whole_volume(depth, side):
    step = side // 2

    def windows(first, last):
        return {min(start, last - side) for start in range(first, last - step, step)}

    done = 0
    for begin, end, first, last in blocks(depth, side):
        assert (begin, first <= begin < end <= last) == (done, True)
        assert last - first <= (DEEP + 2) * side
        done = end
        if depth <= side:
            assert (first, last) == (0, depth)
            continue
        needed = {a for a in windows(0, depth) if a < end and a + side > begin}
        inside = windows(first, last)
        assert needed <= inside
        assert {a for a in inside if a < end and a + side > begin} == needed
    assert done == depth


def test_blocks_change_no_label():
    volume, model = torch.rand(150, 16, 16, generator=torch.Generator().manual_seed(0)), made()
    with torch.inference_mode():
        parts = [next(b) for b in window_probabilities([model], volume, (16, 16, 16), 3)]
        assert [part.shape[1] for part in parts] == [64, 64, 22]
        from monai.inferers import sliding_window_inference

        (expected,) = sliding_window_inference(
            volume[None, None],
            (16, 16, 16),
            4,
            lambda windows: model(windows).softmax(1),
            overlap=0.5,
            mode="gaussian",
        )
    torch.testing.assert_close(torch.cat(parts, 1), expected)


def test_batches_and_modes_change_nothing():
    volume, model = scan(40, 33, 33), made().train()
    given_batches = [
        segment_volume([model], volume, 32, "area", WINDOW, n, (16, 16, 16)) for n in (1, 24, 500)
    ]
    for labels in given_batches:
        np.testing.assert_array_equal(labels, given_batches[0])
    assert model.training
    first, second = (made(seed) for seed in (1, 2))
    both = segment_volume([first, second], volume, 32, "area", WINDOW, patch=(16, 32, 32))
    assert (both != segment_volume([first], volume, 32, "area", WINDOW, patch=(16, 32, 32))).any()


def test_files_get_label_maps_on_their_own_grid(weights, tmp_path):
    hu = scan(20, 37, 41)
    path, out = tmp_path / "scan.nii.gz", tmp_path / "out"
    affine = np.diag([-0.8, -0.7, 2.5, 1.0])  # columns to the patient's left, rows to the back
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine), path)
    assert main(["predict", str(weights), str(path), "--out", str(out), "--overlay"]) == 0
    labels = nibabel.load(out / "scan_labels.nii.gz")
    assert labels.shape == (41, 37, 20)
    predictor = Predictor.from_checkpoint(weights)
    assert (predictor.volumes, predictor.sizes, predictor.patch) == (True, (32,), (16, 32, 32))
    from vmunet.data.nifti import read_volume

    result = predictor(path, overlay=True)
    expected = segment_volume(
        [made(1)], read_volume(path).voxels, 32, "area", WINDOW, patch=(16, 32, 32)
    )
    np.testing.assert_array_equal(result.labels, expected)
    assert result.overlay.shape[2] == 3
    counts = np.bincount(np.asarray(labels.dataobj).astype(int).ravel(), minlength=3)
    assert counts.tolist() == np.bincount(expected.ravel(), minlength=3).tolist()


def test_a_photo_is_refused(weights, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"")
    assert main(["predict", str(weights), str(photo), "--out", str(tmp_path / "out")]) == 2
    assert "photo.png: an image, but" in capsys.readouterr().err
    with pytest.raises(InputError, match="an image, but this model segments CT volumes"):
        Predictor.from_checkpoint(weights)(np.zeros((32, 32, 3), np.uint8))
    assert main(["serve", str(weights), "--port", "0"]) == 2
    assert "segments CT volumes, and the page takes images" in capsys.readouterr().err


def test_the_header_says_the_patch(weights, tmp_path):
    assert load_volume_models([weights])[1].patch == (16, 32, 32)
    path = tmp_path / "other.safetensors"
    for patch in (None, [16, 32], [16, 32, 30], [0, 32, 32]):
        save_checkpoint(path, made(1), {k: v for k, v in CT.items() if k != "patch" or patch})
        if patch:
            save_checkpoint(path, made(1), CT | {"patch": patch})
        said = r"its header lacks .* patch if its model takes|patch is \[0, 32, 32\]; expected 1 to"
        with pytest.raises(InputError, match=said):
            load_volume_models([path])
    save_checkpoint(path, made(1), CT | {"patch": [16, 16, 16]})
    with pytest.raises(InputError, match="cannot be averaged, their patch differ"):
        load_volume_models([weights, path])


def test_one_class_is_refused(tmp_path):
    with pytest.raises(InputError, match="Tiny 3D needs at least 2 classes, not 1"):
        build(NAME, num_classes=1)
    with pytest.raises(InputError, match="a model has 1 classes; expected the background"):
        segment_volume([Tiny3D(1)], np.zeros((16, 32, 32)), 32, "area", WINDOW, patch=(16, 32, 32))


def test_a_model_of_volumes_without_a_patch_is_named():
    with pytest.raises(InputError, match=r"Tiny 3D takes \(batch, channels, depth, height, width"):
        segment_volume([made()], np.zeros((16, 32, 32)), 32, "area", WINDOW)


def test_without_monai_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def no_monai(name, *rest):
        if name.startswith("monai"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_monai)
    with pytest.raises(InputError, match=r"needs MONAI: pip install 'vmunet\[volumes\]'"):
        segment_volume([made()], np.zeros((16, 32, 32)), 32, "area", WINDOW, patch=(16, 32, 32))
    assert "vmunet.inference.windows" in sys.modules


def test_a_window_becomes_onnx(weights, tmp_path):
    predictor, target = Predictor.from_checkpoint(weights, "cpu"), tmp_path / "model.onnx"
    predictor.to_onnx(target)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    windows = torch.rand(1, 1, 16, 32, 32)
    (logits,) = session.run(["logits"], {"images": windows.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, made(1)(windows).numpy(), atol=1e-4)
    assert main(["export", str(weights), "--out", str(tmp_path / "no.onnx")]) == 2
