"""nnU-Net's raw format: what is exported reads back as the arrays; what it predicts is checked."""

import json

import cv2
import nibabel
import numpy as np
import pytest

from vmunet.data.arrays import Ids, held_out
from vmunet.data.nnunet import (
    IMAGE,
    SPLITS,
    VOLUME,
    check_complete,
    check_exported,
    export_images,
    export_volumes,
    read_image_prediction,
    read_volume_prediction,
)
from vmunet.errors import InputError

SIZE, SHAPE, SPACING = 8, (3, 5, 7), [2.5, 0.7, 0.9]  # depth, height, width


@pytest.fixture
def images(tmp_path):
    """Arrays of 12 training and 2 test images, and their manifest."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 2)):
        folder = tmp_path / "arrays" / part
        folder.mkdir(parents=True)
        (folder / "ids.txt").write_text("".join(f"{part}_{i:04}\n" for i in range(count)))
        shape = (count, SIZE, SIZE)
        np.save(folder / "images.npy", random.integers(0, 256, (*shape, 3), np.uint8))
        np.save(folder / "masks.npy", random.integers(0, 256, shape, np.uint8))
    return tmp_path / "arrays", {"view": "a", "size": SIZE}


@pytest.fixture
def volumes(tmp_path):
    """Arrays of four training cases and a test case, their manifest, and the cases."""
    random = np.random.default_rng(1)
    cases = [f"case{i}" for i in range(5)]
    for case in cases:
        folder = tmp_path / "arrays/cases" / case
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", random.random(SHAPE, np.float32))
        np.save(folder / "labels.npy", random.integers(0, 3, SHAPE, np.uint8))
    facts = {"classes": ["liver", "spleen"], "test": cases[4:], "window": [-125, 275]}
    manifest = facts | {"cases": {case: {"spacing": SPACING} for case in cases}}
    return tmp_path / "arrays", manifest, Ids(cases[:4], ["p", "q", "q", "r"])


def described(target):
    return [json.loads((target / name).read_text()) for name in ("dataset.json", SPLITS)]


def test_images_read_back_as_the_arrays(images, tmp_path):
    arrays, manifest = images
    target = tmp_path / "Dataset001_a"
    export_images(arrays, target, manifest, ["lesion"])
    for part, folder in (("train", "imagesTr"), ("test", "imagesTs")):
        for i, pixels in enumerate(np.load(arrays / part / "images.npy")):
            written = cv2.imread(str(target / folder / f"{part}_{i:04}_0000.png"))
            np.testing.assert_array_equal(written[..., ::-1], pixels)
    for i, mask in enumerate(np.load(arrays / "train/masks.npy")):
        labels = cv2.imread(str(target / f"labelsTr/train_{i:04}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, mask / 255 >= 0.5)
    dataset, (fold,) = described(target)
    assert dataset["labels"] == {"background": 0, "lesion": 1}
    assert (dataset["file_ending"], dataset["numTraining"]) == (".png", 12)
    assert list(dataset["channel_names"]) == ["0", "1", "2"]
    ids = [f"train_{i:04}" for i in range(12)]
    assert fold == dict(
        zip(("train", "val"), ([ids[i] for i in p] for p in held_out(ids)), strict=True)
    )


def test_several_classes_keep_their_labels(images, tmp_path):
    arrays, manifest = images
    labels = np.arange(12 * SIZE * SIZE, dtype=np.uint8).reshape(12, SIZE, SIZE) % 3
    np.save(arrays / "train/masks.npy", labels)
    export_images(arrays, tmp_path / "out", manifest, ["disc", "cup"])
    written = cv2.imread(str(tmp_path / "out/labelsTr/train_0003.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, labels[3])


def test_volumes_lie_as_the_arrays_say(volumes, tmp_path):
    arrays, manifest, cases = volumes
    target = tmp_path / "Dataset001_v"
    export_volumes(arrays, target, manifest, cases)
    file = nibabel.load(target / "imagesTs/case4_0000.nii.gz")
    np.testing.assert_array_equal(
        np.asarray(file.dataobj).transpose(2, 1, 0), np.load(arrays / "cases/case4/image.npy")
    )
    assert nibabel.aff2axcodes(file.affine) == ("L", "P", "S")
    assert file.header.get_zooms() == pytest.approx(SPACING[::-1])
    dataset, (fold,) = described(target)
    assert (dataset["channel_names"], dataset["labels"]["spleen"]) == ({"0": "CT"}, 2)
    assert not (target / "labelsTr/case4.nii.gz").exists()
    # a patient's cases are together
    assert any({"case1", "case2"} <= set(part) for part in fold.values())
    assert sorted(fold["train"] + fold["val"]) == list(cases)


def test_a_prediction_on_the_exported_grid_is_read_whatever_its_axes(volumes, tmp_path):
    arrays, manifest, cases = volumes
    export_volumes(arrays, tmp_path / "d", manifest, cases)
    image = tmp_path / "d/imagesTs/case4_0000.nii.gz"
    labels = np.load(arrays / "cases/case4/labels.npy")
    right = nibabel.Nifti1Image(labels.transpose(2, 1, 0), nibabel.load(image).affine)
    for name, file in (("as", right), ("turned", nibabel.as_closest_canonical(right))):
        nibabel.save(file, tmp_path / f"{name}{VOLUME}")
        read = read_volume_prediction(tmp_path / f"{name}{VOLUME}", image, 2)
        np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("fault", ["shape", "place", "label", "type", "cut"])
def test_a_wrong_volume_is_one_error_with_its_name(volumes, tmp_path, fault):
    arrays, manifest, cases = volumes
    export_volumes(arrays, tmp_path / "d", manifest, cases)
    image = tmp_path / "d/imagesTs/case4_0000.nii.gz"
    labels = np.load(arrays / "cases/case4/labels.npy").transpose(2, 1, 0).astype(np.float32)
    affine = nibabel.load(image).affine.copy()
    if fault == "shape":
        labels = labels[:-1]
    elif fault == "place":
        affine[0, 3] = 3
    elif fault == "label":
        labels[0, 0, 0] = 3
    elif fault == "type":
        labels[0, 0, 0] = 0.5
    path = tmp_path / "case4.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"case4\.nii\.gz"):
        read_volume_prediction(path, image, 2)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((SIZE, SIZE + 1), np.uint8),
        np.full((SIZE, SIZE), 2, np.uint8),
        np.full((SIZE, SIZE), 255, np.uint8),
        np.zeros((SIZE, SIZE), np.uint16),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        None,
    ],
    ids=["size", "label", "mask", "16 bits", "colours", "cut"],
)
def test_a_wrong_image_is_one_error_with_its_name(tmp_path, labels):
    path = tmp_path / "a.png"
    content = cv2.imencode(IMAGE, np.zeros((SIZE, SIZE), np.uint8) if labels is None else labels)[1]
    path.write_bytes(content.tobytes()[: -20 if labels is None else None])
    with pytest.raises(InputError, match=r"a\.png"):
        read_image_prediction(path, SIZE, 1)


def test_missing_and_unknown_predictions_are_named(tmp_path):
    with pytest.raises(InputError, match="predictions: no such folder"):
        check_complete(tmp_path / "predictions", ["a"], IMAGE)
    for name in ("a.png", "plans.json"):  # nnU-Net leaves such files beside them
        (tmp_path / name).touch()
    check_complete(tmp_path, ["a"], IMAGE)
    with pytest.raises(InputError, match=r"b\.png: no such prediction"):
        check_complete(tmp_path, ["a", "b"], IMAGE)
    (tmp_path / "c.png").touch()
    with pytest.raises(InputError, match=r"c\.png: is of no test image"):
        check_complete(tmp_path, ["a"], IMAGE)


def test_an_export_of_other_arrays_is_refused(images, tmp_path):
    arrays, manifest = images
    with pytest.raises(InputError, match=r"dataset\.json: no such file"):
        check_exported(tmp_path / "out", manifest)
    export_images(arrays, tmp_path / "out", manifest, ["lesion"])
    check_exported(tmp_path / "out", manifest)
    with pytest.raises(InputError, match=r"dataset\.json: was exported from other arrays"):
        check_exported(tmp_path / "out", manifest | {"n_test": 3})
