"""Prepared arrays in the raw format of nnU-Net v2, and the predictions that it makes from them.

    <dataset>/dataset.json
    <dataset>/imagesTr/<id>_0000.png    <dataset>/labelsTr/<id>.png    <dataset>/imagesTs/...
    <dataset>/splits_final.json         the fold 0, for nnU-Net's folder of preprocessed data

Images are natural 2D images, PNG of three channels; volumes are NIfTI, .nii.gz of one channel, the
window's values 0..1. Both are what this project's models get; of volumes they resize each slice.

The format:
https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
from numpy.typing import NDArray

from vmunet.data.arrays import BINARY_LEVEL, ArrayDataset, held_out
from vmunet.data.images import decode
from vmunet.data.nifti import check_same_grid, read_labels, read_volume
from vmunet.data.slice_dataset import open_case
from vmunet.errors import InputError
from vmunet.files import whole_folder

IMAGE, VOLUME = ".png", ".nii.gz"
SPLITS = "splits_final.json"
ARRAYS = "vmunet_arrays"  # our key in dataset.json: the manifest of the exported arrays
EXPORT = "export the view again (`vmunet nnunet export`)"
AGAIN = "predict again (`vmunet nnunet predict`)"

Labels = NDArray[np.uint8]


def export_images(
    arrays: Path, target: Path, manifest: Mapping[str, Any], classes: Sequence[str]
) -> None:
    """Write data/arrays/<view>/<protocol> as nnU-Net's dataset, completely or not at all.

    Args:
        arrays: see `vmunet.data.arrays`.
        target: the dataset's new folder.
        manifest: of the arrays.
        classes: names of the labels 1, 2, ...; masks of one class are cut at one half.

    Raises:
        InputError: the arrays are missing or do not fit one another.
    """
    train, test = (ArrayDataset(arrays, part, classes=len(classes)) for part in ("train", "test"))
    with _dataset(target) as folder:
        for dataset, images in ((train, "imagesTr"), (test, "imagesTs")):
            for name, image in zip(dataset.ids, dataset.images, strict=True):
                pixels = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
                _write_png(folder / images / f"{name}_0000{IMAGE}", pixels)
        for name, mask in zip(train.ids, train.masks, strict=True):
            labels = np.asarray(mask)
            if len(classes) == 1:
                labels = (labels >= BINARY_LEVEL).astype(np.uint8)
            _write_png(folder / "labelsTr" / f"{name}{IMAGE}", labels)
        kept, held = held_out(train.ids)
        _describe(folder, IMAGE, ("R", "G", "B"), classes, train.ids, kept, held, manifest)


def export_volumes(
    arrays: Path, target: Path, manifest: Mapping[str, Any], cases: Sequence[str]
) -> None:
    """Write data/arrays/<view> of volumes as nnU-Net's dataset, completely or not at all.

    Args:
        arrays: see `vmunet.data.volumes`.
        target: the dataset's new folder.
        manifest: of the arrays. Where it knows no spacing, voxels are cubes of 1 mm.
        cases: the training cases, with their patients if these are known.

    Raises:
        InputError: the arrays are missing or do not fit one another.
    """
    with _dataset(target) as folder:
        for part, images in ((cases, "imagesTr"), (manifest["test"], "imagesTs")):
            for case in part:
                image, labels = open_case(arrays, case)
                spacing = manifest["cases"][case]["spacing"] or (1.0, 1.0, 1.0)
                _write_nifti(folder / images / f"{case}_0000{VOLUME}", image, spacing)
                if part is cases:
                    _write_nifti(folder / "labelsTr" / f"{case}{VOLUME}", labels, spacing)
        # nnU-Net normalises a channel called CT by the intensities of the whole dataset, and any
        # other by those of each case.
        channel = "CT" if manifest.get("window") else "MRI"
        kept, held = held_out(cases, fraction=1 / 6)
        _describe(folder, VOLUME, (channel,), manifest["classes"], cases, kept, held, manifest)


def check_exported(dataset: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a dataset that was exported from other arrays.

    Args:
        dataset: the exported folder.
        manifest: of the view's arrays now.

    Raises:
        InputError: there is no dataset, or it was made from arrays with another manifest.
    """
    path = dataset / "dataset.json"
    try:
        exported = json.loads(path.read_text(encoding="utf-8")).get(ARRAYS)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {EXPORT}") from None
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{path}: not nnU-Net's description ({error}); {EXPORT}") from None
    if exported != json.loads(json.dumps(manifest)):
        raise InputError(f"{path}: was exported from other arrays than the present ones; {EXPORT}")


def check_complete(folder: Path, names: Sequence[str], ending: str) -> None:
    """Refuse a folder of predictions that lacks one, or has one of an unknown id.

    Args:
        folder: nnU-Net's output.
        names: the ids of the test images or cases.
        ending: of the files, `.png` or `.nii.gz`.

    Raises:
        InputError: the message names the file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {AGAIN}")
    for name in names:
        if not (folder / f"{name}{ending}").is_file():
            raise InputError(f"{folder / name}{ending}: no such prediction; {AGAIN}")
    known = {f"{name}{ending}" for name in names}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(ending) and path.name not in known:
            raise InputError(f"{path}: is of no test image of this view; remove it, or {AGAIN}")


def read_image_prediction(path: Path, size: int, classes: int) -> Labels:
    """A predicted label map of an image, (size, size), 0..classes.

    Raises:
        InputError: the file cannot be read, has another shape or other labels.
    """
    labels = decode(path)
    if labels.dtype != np.uint8 or labels.shape != (size, size):
        found = " x ".join(map(str, labels.shape))
        raise InputError(
            f"{path}: has {found} values of type {labels.dtype}; expected labels, {size} x {size} "
            f"of one 8-bit channel; {AGAIN}"
        )
    if (highest := int(labels.max())) > classes:
        raise InputError(f"{path}: holds label {highest}; expected 0 to {classes}; {AGAIN}")
    return labels.astype(np.uint8, copy=False)


def read_volume_prediction(path: Path, exported: Path, classes: int) -> Labels:
    """A predicted label map of a volume, (depth, height, width), 0..classes.

    Args:
        path: the prediction.
        exported: the exported volume, on whose grid the prediction must be.
        classes: the number of classes without the background.

    Raises:
        InputError: a file cannot be read, or the prediction has another grid or other labels.
    """
    prediction = read_labels(path, range(classes + 1), AGAIN)
    check_same_grid(read_volume(exported), prediction)
    return prediction.voxels


@contextmanager
def _dataset(target: Path) -> Iterator[Path]:
    with whole_folder(target) as folder:
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / name).mkdir()
        yield folder


def _describe(
    folder: Path,
    ending: str,
    channels: Sequence[str],
    classes: Sequence[str],
    names: Sequence[str],
    kept: Sequence[int],
    held: Sequence[int],
    manifest: Mapping[str, Any],
) -> None:
    """Write dataset.json and splits_final.json, whose fold 0 is this project's."""
    content = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0} | {name: i for i, name in enumerate(classes, 1)},
        "numTraining": len(names),
        "file_ending": ending,
        ARRAYS: dict(manifest),
    }
    fold = {"train": [names[i] for i in kept], "val": [names[i] for i in held]}
    for name, value in (("dataset.json", content), (SPLITS, [fold])):
        (folder / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _write_png(path: Path, pixels: NDArray) -> None:
    path.write_bytes(cv2.imencode(IMAGE, pixels)[1].tobytes())


def _write_nifti(path: Path, voxels: NDArray, spacing: Sequence[float]) -> None:
    """Write voxels (depth, height, width): indices grow towards superior, posterior, left."""
    depth, height, width = spacing
    affine = np.diag([-width, -height, depth, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(voxels).transpose(2, 1, 0), affine), path)
