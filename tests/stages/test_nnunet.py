"""Scoring nnU-Net's predictions: the truth as a prediction is perfect, a wrong file is no score."""

import json
import shutil
import zipfile
from types import SimpleNamespace

import cv2
import nibabel
import numpy as np
import pytest

from pipeline.config.nnunet import Place
from stages.nnunet import export, score
from tests.helpers.data import encoded
from vmunet.errors import InputError

SIZE = 32


def params_of(view, volumes=False):
    """The part of the parameters that this stage reads, with one view."""
    declared = SimpleNamespace(dataset="d", size=SIZE, protocols=["paper"])
    views = {view: declared}
    return SimpleNamespace(
        profile_name="demo",
        profile=SimpleNamespace(evaluate=SimpleNamespace(bootstrap=20)),
        grid=SimpleNamespace(views={} if volumes else views, volumes=views if volumes else {}),
        own=SimpleNamespace(volumes={}, datasets={}, views=dict),
        view=lambda name: views[name],
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folders of a view `a` in an empty clone, with a model."""
    monkeypatch.chdir(tmp_path)
    place = Place("a")
    place.checkpoint.parent.mkdir(parents=True)
    place.checkpoint.write_bytes(b"model")
    place.predictions.mkdir(parents=True)
    return place


def metrics():
    with open("metrics/demo/a/nnunet/metrics.json") as file:
        return json.load(file)


def write_images(tmp_path, classes):
    """Arrays with 4 training and 2 test images; the test images' labels by id."""
    arrays, random = tmp_path / "data/arrays/a/paper", np.random.default_rng(0)
    masks = {}
    for part in ("train", "test"):
        folder = arrays / part
        folder.mkdir(parents=True)
        ids = [f"{part}{i}" for i in range(4 if part == "train" else 2)]
        (folder / "ids.txt").write_text("\n".join(ids))
        labels = random.integers(0, len(classes) + 1, (len(ids), SIZE, SIZE), np.uint8)
        stored = labels if len(classes) > 1 else labels * 255
        np.save(folder / "masks.npy", stored)
        np.save(folder / "images.npy", np.zeros((*labels.shape, 3), np.uint8))
        masks = dict(zip(ids, labels, strict=True))
    with zipfile.ZipFile(arrays / "test/native_masks.zip", "w") as archive:
        for name, mask in zip(masks, stored, strict=True):
            archive.writestr(f"{name}.png", encoded(mask))
    facts = {"size": SIZE, "source": "phantom", "n_train": 4, "n_test": 2}
    named = {"classes": classes} if len(classes) > 1 else {}
    (arrays / "manifest.json").write_text(json.dumps(facts | named))
    return masks


@pytest.mark.parametrize("classes", [["lesion"], ["disc", "cup"]])
def test_the_truth_is_a_perfect_prediction_of_images(tmp_path, place, classes):
    masks, params = write_images(tmp_path, classes), params_of("a")
    export(place, params)
    for name, labels in masks.items():
        cv2.imwrite(str(place.predictions / f"{name}.png"), labels)
    score(place, params)
    found = metrics()
    assert found["paper"]["dsc"] == found["sound"]["native_size"]["mean_dice"] == 1
    assert "calibration" not in found["sound"]
    assert found["run"]["trainer"] == "nnUNetTrainer"
    rest = masks["test0"].copy()
    rest[: SIZE // 2] = 0  # half of a prediction is missing
    cv2.imwrite(str(place.predictions / "test0.png"), rest)
    score(place, params)
    assert 0.5 < metrics()["paper"]["dsc"] < 1


def test_no_score_of_wrong_predictions(tmp_path, place):
    masks, params = write_images(tmp_path, ["lesion"]), params_of("a")
    with pytest.raises(InputError, match=r"dataset\.json: no such file"):
        score(place, params)
    export(place, params)
    cv2.imwrite(str(place.predictions / "test0.png"), masks["test0"])
    with pytest.raises(InputError, match=r"test1\.png: no such prediction"):
        score(place, params)
    cv2.imwrite(str(place.predictions / "test1.png"), masks["test1"][1:])
    with pytest.raises(InputError, match=r"test1\.png: has 31 x 32 values"):
        score(place, params)
    place.checkpoint.unlink()
    with pytest.raises(InputError, match="vmunet nnunet train"):
        score(place, params)
    assert not (tmp_path / "metrics").exists()


def test_a_used_export_is_not_replaced_by_other_arrays(tmp_path, place):
    write_images(tmp_path, ["lesion"])
    export(place, params_of("a"))
    place.preprocessed.mkdir(parents=True)
    export(place, params_of("a"))
    path = tmp_path / "data/arrays/a/paper/manifest.json"
    path.write_text(path.read_text().replace("phantom", "file"))
    with pytest.raises(InputError, match=r"other arrays .*remove \.nnunet/a"):
        export(place, params_of("a"))


def test_the_truth_is_a_perfect_prediction_of_volumes(tmp_path, place):
    arrays, shape, random = tmp_path / "data/arrays/a", (3, SIZE, SIZE), np.random.default_rng(0)
    cases = [f"case{i}" for i in range(3)]
    for case in cases:
        folder = arrays / "cases" / case
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", random.random(shape, np.float32))
        labels = np.zeros(shape, np.uint8)
        labels[:, 4:9, 5:12], labels[1:, 20:28, 6:16] = 1, 2
        np.save(folder / "labels.npy", labels)
    about = {"spacing": [2.0, 0.5, 0.5], "shape": list(shape)}
    manifest = {"size": SIZE, "source": "phantom", "classes": ["liver", "spleen"]}
    manifest |= {"train": cases[:2], "test": cases[2:], "n_test": 1}
    manifest |= {"cases": dict.fromkeys(cases, about), "window": [-125, 275]}
    (arrays / "manifest.json").write_text(json.dumps(manifest))
    params = params_of("a", volumes=True)
    export(place, params)
    truth = place.predictions / "case2.nii.gz"
    shutil.copyfile(place.dataset / "labelsTr/case0.nii.gz", truth)
    score(place, params)
    found = metrics()
    assert (found["paper"]["dsc"], found["sound"]["hd95_mm"]) == (1, 0)
    file = nibabel.load(truth)
    moved = np.roll(np.asarray(file.dataobj), 1, 0)  # by a pixel to the patient's left
    nibabel.save(nibabel.Nifti1Image(moved, file.affine), truth)
    score(place, params)
    assert metrics()["sound"]["hd95_mm"] == pytest.approx(0.5)
