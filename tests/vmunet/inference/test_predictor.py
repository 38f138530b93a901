"""`Predictor` gives for images, classes and volumes the same results as `vmunet predict`."""

import struct
import zlib

import cv2
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from vmunet import InputError, Predictor, VMUNet
from vmunet.cli import main
from vmunet.data.nifti import read_volume
from vmunet.inference.classes import segment_classes
from vmunet.inference.ensemble import load_members
from vmunet.inference.files import draw_overlay
from vmunet.inference.images import segment
from vmunet.inference.volumes import segment_volume
from vmunet.models import MODELS
from vmunet.weights.checkpoints import save_checkpoint

IMAGE = {"normalisation": "minmax", "size": 64, "protocol": "paper"}
NAMES = ["disc", "box", "bar"]
CT = {
    "normalisation": "window",
    "window": [-125, 275],
    "size": 64,
    "classes": ["aorta", "liver"],
    "protocol": "sound",
}


def saved(path, metadata, seed=0):
    """A small model whose output varies over the image."""
    torch.manual_seed(seed)
    outputs = len(metadata.get("classes", ())) + 1
    blocks = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    model = VMUNet(dims=(8, 16, 32, 64), num_classes=outputs, **blocks)
    with torch.no_grad():
        model.final_conv.weight *= 5
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, model, metadata)
    return model.eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (45, 77, 3), dtype=np.uint8)


def test_a_lesion(tmp_path, image):
    model = saved(tmp_path / "one.safetensors", IMAGE)
    predictor = Predictor.from_checkpoint(tmp_path / "one.safetensors")
    assert (predictor.volumes, predictor.classes, predictor.sizes) == (False, ("lesion",), (64,))
    result = predictor(image)
    expected = segment([model], image, 64, "bilinear")
    np.testing.assert_array_equal(result.probability, expected)
    np.testing.assert_array_equal(result.labels, expected >= 0.5)
    assert result.labels.dtype == np.uint8
    assert result.mask.dtype == np.bool_
    turned = predictor(image, tta=True).probability
    np.testing.assert_array_equal(turned, segment([model], image, 64, "bilinear", tta=True))
    assert not np.array_equal(turned, expected)


def test_several_classes(tmp_path, image):
    path = tmp_path / "three.safetensors"
    saved(path, IMAGE | {"classes": NAMES})
    result = Predictor.from_checkpoint(str(path))(image)
    labels, probability = segment_classes(load_members([path]), image)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.probability, probability)
    assert result.classes == tuple(NAMES)
    assert result.labels.max() > 1


def test_a_volume(tmp_path, image):
    path = tmp_path / "ct.safetensors"
    model = saved(path, CT)
    hu = np.random.default_rng(1).integers(-1000, 1000, (3, 30, 40)).astype(np.float32)
    predictor = Predictor.from_checkpoint(path, size=32)
    assert predictor.volumes
    result = predictor(hu)
    expected = segment_volume([model], hu, 32, "area", (-125.0, 275.0))
    np.testing.assert_array_equal(result.labels, expected)
    assert result.probability is None
    assert result.classes == ("aorta", "liver")
    with pytest.raises(InputError, match="tta: does not apply"):
        predictor(hu, tta=True)
    with pytest.raises(InputError, match=r"expected numbers \(depth, height, width\)"):
        predictor(hu[0])


def test_a_folder_of_runs_is_averaged(tmp_path, image):
    models = [saved(tmp_path / str(seed) / "weights.safetensors", IMAGE, seed) for seed in (1, 2)]
    predictor = Predictor.from_checkpoint(tmp_path)
    one, two = (segment([model], image, 64, "bilinear") for model in models)
    np.testing.assert_allclose(predictor(image).probability, (one + two) / 2, atol=1e-6)


def test_mistakes_are_named(tmp_path, image):
    saved(tmp_path / "one.safetensors", IMAGE)
    with pytest.raises(InputError, match="no such weights"):
        Predictor.from_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="device 'tpu'"):
        Predictor.from_checkpoint(tmp_path / "one.safetensors", device="tpu")
    predictor = Predictor.from_checkpoint(tmp_path / "one.safetensors")
    with pytest.raises(InputError, match=r"image: expected uint8 \(height, width, 3\)"):
        predictor(image.astype(np.float32))


def test_files_pictures_and_arrays_give_the_same(tmp_path, image):
    saved(tmp_path / "one.safetensors", IMAGE)
    predictor = Predictor.from_checkpoint(tmp_path / "one.safetensors")
    expected = predictor(image).probability
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    for given in (path, str(path), Image.open(path), Image.fromarray(opaque)):
        np.testing.assert_array_equal(predictor(given).probability, expected)
    grey = Image.fromarray(image[..., 0])
    repeated = np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(predictor(grey).labels, predictor(repeated).labels)
    opaque[3, 3, 3] = 9
    with pytest.raises(InputError, match="transparent pixels"):
        predictor(Image.fromarray(opaque))
    with pytest.raises(InputError, match="a picture of mode CMYK"):
        predictor(Image.fromarray(image).convert("CMYK"))


@pytest.mark.parametrize("classes", [{}, {"classes": NAMES}])
def test_a_batch_gives_what_single_calls_give(tmp_path, classes):
    saved(tmp_path / "some.safetensors", IMAGE | classes)
    predictor = Predictor.from_checkpoint(tmp_path / "some.safetensors")
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (40 + i, 50 - i, 3), dtype=np.uint8) for i in range(10)]
    results = predictor.batch(iter(images), tta=True)
    assert len(results) == 10
    for one, result in zip(images, results, strict=True):
        single = predictor(one, tta=True)
        np.testing.assert_allclose(result.probability, single.probability, atol=1e-5)
        certain = np.abs(single.probability - 0.5) > 1e-4
        if not classes:
            np.testing.assert_array_equal(result.labels[certain], single.labels[certain])
        else:
            assert (result.labels == single.labels).mean() > 0.999
    assert predictor.batch([]) == []
    with pytest.raises(InputError, match=r"image 10 of the batch: expected uint8"):
        predictor.batch([*images[:9], images[9] / 2])
    with pytest.raises(InputError, match="a list of images"):
        predictor.batch(images[0])


def test_overlays_are_drawn_on_request(tmp_path, image):
    saved(tmp_path / "one.safetensors", IMAGE)
    predictor = Predictor.from_checkpoint(tmp_path / "one.safetensors")
    assert predictor(image).overlay is None
    result = predictor(image, overlay=True)
    np.testing.assert_array_equal(result.overlay, draw_overlay(image, result.mask))
    saved(tmp_path / "three.safetensors", IMAGE | {"classes": NAMES})
    result = Predictor.from_checkpoint(tmp_path / "three.safetensors")(image, overlay=True)
    assert result.overlay.shape[0] > image.shape[0]  # the legend


def test_a_volume_s_file(tmp_path):
    saved(tmp_path / "ct.safetensors", CT)
    predictor = Predictor.from_checkpoint(tmp_path / "ct.safetensors", size=32)
    voxels = np.random.default_rng(1).integers(-1000, 1000, (40, 30, 3)).astype(np.int16)
    path = tmp_path / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    result = predictor(str(path), overlay=True)
    np.testing.assert_array_equal(result.labels, predictor(read_volume(path).voxels).labels)
    assert result.overlay.ndim == 3
    (batched,) = predictor.batch([path])
    np.testing.assert_array_equal(batched.labels, result.labels)


def test_the_other_kind_is_refused_in_one_sentence(tmp_path, image):
    saved(tmp_path / "one.safetensors", IMAGE)
    saved(tmp_path / "ct.safetensors", CT)
    images = Predictor.from_checkpoint(tmp_path / "one.safetensors")
    volumes = Predictor.from_checkpoint(tmp_path / "ct.safetensors")
    for given in ("photo.jpg", image, Image.fromarray(image)):
        with pytest.raises(InputError, match="an image, but this model segments CT volumes"):
            volumes(given)
    for given in ("ct.nii.gz", np.zeros((3, 30, 40), np.float32)):
        with pytest.raises(InputError, match="a CT volume, but this model segments images"):
            images(given)
    with pytest.raises(InputError, match=r"none.png: no such file; this model segments images"):
        images("none.png")
    (tmp_path / "x.txt").touch()
    with pytest.raises(InputError, match="not a file that this model segments"):
        images(tmp_path / "x.txt")
    with pytest.raises(InputError, match="image: a list; expected a path"):
        images([image])


def huge_png(path, width=40_000, height=20_000):
    """A PNG of a few bytes whose header promises 200 megapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(1000)))
    stored = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(stored))
    return path


def test_800_megapixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "one.safetensors", IMAGE)
    predictor = Predictor.from_checkpoint(tmp_path / "one.safetensors")
    path = huge_png(tmp_path / "huge.png")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    expected = r"40000 x 20000 px, 800 megapixels; expected at most 400"
    with pytest.raises(InputError, match=rf"huge.png: {expected}"):
        predictor(path)
    with pytest.raises(InputError, match=expected):
        predictor(np.broadcast_to(np.uint8(1), (20_000, 40_000, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(InputError, match=expected):
        predictor(Image.open(path))
    pages = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="a file of 2 pictures"):
        predictor(Image.open(tmp_path / "pages.tif"))
    weights, out = str(tmp_path / "one.safetensors"), str(tmp_path / "masks")
    assert main(["predict", weights, str(path), "--out", out]) == 2
    assert "800 megapixels" in capsys.readouterr().err


def test_one_model_becomes_onnx(tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(
        "vmunet.inference.predictor.export_onnx", lambda *given: exported.append(given)
    )
    for metadata in (IMAGE, CT):
        saved(tmp_path / "one.safetensors", metadata)
        Predictor.from_checkpoint(tmp_path / "one.safetensors").to_onnx(tmp_path / "m.onnx")
    assert [given[1:] for given in exported] == [(tmp_path / "m.onnx", 64)] * 2
    for seed in (1, 2):
        saved(tmp_path / str(seed) / "weights.safetensors", IMAGE, seed)
    with pytest.raises(InputError, match="2 models are averaged here; export takes one"):
        Predictor.from_checkpoint(tmp_path).to_onnx("m.onnx")


def test_mlflow_s_models_need_the_pipeline(monkeypatch):
    def without_mlflow():
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow.tracking")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    monkeypatch.setattr("pipeline.tracking.fetch.client", without_mlflow)
    with pytest.raises(InputError, match=r"models:/x/1: a model of MLflow needs the pipeline"):
        Predictor.from_checkpoint("models:/x/1")
    monkeypatch.setattr("vmunet.weights.places.PIPELINE", "no_pipeline_in_a_wheel")
    with pytest.raises(InputError, match=r"runs:/1: a model of MLflow needs the pipeline"):
        Predictor.from_checkpoint("runs:/1")


def test_without_a_store_nothing_is_made(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"models:/x/1: no mlflow.db in this folder"):
        Predictor.from_checkpoint("models:/x/1")
    assert not list(tmp_path.iterdir())


def test_the_registry_gives_the_models_class():
    assert MODELS["vmunet"] is VMUNet
    with pytest.raises(KeyError):
        MODELS["u-net"]
