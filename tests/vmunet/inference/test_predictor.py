"""`Predictor` gives for images, classes and volumes the same results as `vmunet predict`."""

import numpy as np
import pytest
import torch

from vmunet import InputError, Predictor, VMUNet
from vmunet.inference.classes import segment_classes
from vmunet.inference.ensemble import load_members
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


def test_the_registry_names_the_model():
    assert list(MODELS) == ["vmunet"]
    assert MODELS["vmunet"] is VMUNet
    with pytest.raises(KeyError):
        MODELS["unet"]
