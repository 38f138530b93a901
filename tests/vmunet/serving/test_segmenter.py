"""What the page shows is what `Predictor` gives."""

import base64
import json

import cv2
import numpy as np
import pytest

from tests.helpers.classes import NAMES, scene
from tests.helpers.data import encoded
from tests.helpers.serving import write_weights
from vmunet import InputError, Predictor
from vmunet.serving.examples import find_examples
from vmunet.serving.segmenter import Segmenter, count_models


@pytest.fixture(scope="module")
def lesion(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("lesion") / "weights.safetensors")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "weights.safetensors"
    return write_weights(path, classes=list(NAMES))


def pixels_of(url: str) -> np.ndarray:
    kind, content = url.split(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    data = np.frombuffer(base64.b64decode(content), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("threshold", [None, 0.5, 0.45])
def test_a_lesion(lesion, threshold):
    image, _ = scene(1, 60, 90)
    answer = Segmenter(lesion)("my photo.png", encoded(image[..., ::-1]), threshold)
    probability = Predictor.from_checkpoint(lesion)(image).probability
    mask = probability >= (threshold or 0.5)
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(pixels_of(answer.download), 255 * mask)
    assert answer.download_name == "my photo_mask.png"
    assert (answer.width, answer.height) == (90, 60)
    (area,) = answer.areas
    assert (area.name, area.pixels) == ("lesion", mask.sum())
    assert area.share == pytest.approx(mask.mean())
    # a small image is enlarged for the screen, all three pictures alike
    pictures = [pixels_of(url) for url in (answer.image, answer.overlay, answer.mask)]
    assert {picture.shape[:2] for picture in pictures} == {(533, 800)}
    assert set(np.unique(pictures[2])) == {0, 255}
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 50


def test_several_classes(classes):
    image, _ = scene(1, 60, 90)
    answer = Segmenter(classes)("a.png", encoded(image[..., ::-1]))
    labels = Predictor.from_checkpoint(classes)(image).labels
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(pixels_of(answer.download), labels)
    assert [area.name for area in answer.areas] == list(NAMES)
    counts = [(labels == k).sum() for k in (1, 2, 3)]
    assert [area.pixels for area in answer.areas] == counts
    # in the shown mask a class has the colour that its row names
    mask = pixels_of(answer.mask)[..., ::-1]
    shown = {"#{:02x}{:02x}{:02x}".format(*colour) for colour in mask.reshape(-1, 3)}
    present = {a.colour for a in answer.areas if a.pixels}
    assert shown - {"#000000"} == present


def test_a_large_image_is_reduced_for_the_screen_alone(lesion):
    answer = Segmenter(lesion)("a.png", encoded(np.zeros((40, 3000, 3), np.uint8)))
    assert pixels_of(answer.overlay).shape[:2] == (21, 1600)
    assert pixels_of(answer.download).shape == (40, 3000)


def test_moving_the_threshold_does_not_run_the_model_again(lesion, monkeypatch):
    segmenter = Segmenter(lesion)
    runs = []
    predictor = segmenter._predictor
    monkeypatch.setattr(segmenter, "_predictor", lambda image: runs.append(1) or predictor(image))
    first, second = (encoded(scene(seed, 40, 40)[0]) for seed in (1, 2))
    shares = [segmenter("a.png", first, t).areas[0].share for t in (0.4, 0.5, 0.6)]
    assert shares[0] > shares[1] > shares[2]
    assert len(runs) == 1
    segmenter("a.png", second)
    assert len(runs) == 2


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_threshold(lesion, threshold):
    with pytest.raises(InputError, match="between 0 and 1"):
        Segmenter(lesion)("a.png", b"", threshold)


def test_a_threshold_for_several_classes(classes):
    with pytest.raises(InputError, match="several classes"):
        Segmenter(classes)("a.png", b"", 0.5)


def test_weights_of_volumes_are_refused(tmp_path):
    facts = {"normalisation": "window", "window": [-125, 275], "classes": ["aorta", "liver"]}
    path = write_weights(tmp_path / "ct.safetensors", **facts)
    with pytest.raises(InputError, match=r"ct\.safetensors: segments CT volumes.*vmunet predict"):
        Segmenter(path)


def test_how_models_are_counted():
    assert count_models((256,)) == "1 model, 256 × 256 px"
    assert count_models((64, 128, 64)) == "3 models, 64 × 64 and 128 × 128 px"


def test_examples_are_test_images_of_the_weights_dataset(tmp_path):
    run, raw = tmp_path / "run", tmp_path / "raw"
    weights = write_weights(run / "weights.safetensors")
    assert find_examples(run, raw) == []
    (run / "run.json").write_text(json.dumps({"run": {"dataset": "isic17"}}))
    assert find_examples(run, raw) == []
    images = raw / "isic17" / "images"
    images.mkdir(parents=True)
    ids = [f"ISIC_{i:07d}" for i in range(30)]
    for name in ids:
        (images / f"{name}.jpg").touch()
    split = {"train": ids[:10], "test": ids[10:]}
    (raw / "isic17" / "manifest.json").write_text(json.dumps(split))
    chosen = [path.stem for path in find_examples(weights, raw)]
    assert len(chosen) == len(set(chosen)) == 6
    assert set(chosen) <= set(split["test"])
