"""Read Synapse as TransUNet's authors prepared it: train_npz/ and test_vol_h5/.

train_npz/case0005_slice000.npz   image (height, width) 0..1, label 0..8
test_vol_h5/case0001.npy.h5       image (depth, height, width) 0..1, label 0..8

The files hold no spacing, and do not say which side is the patient's left.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.data.bounded import check_npz
from vmunet.data.hdf5 import read_h5
from vmunet.data.synapse.official import CLASSES, TEST, TRAIN, TRAIN_SLICES
from vmunet.data.volumes import Case, Pixels
from vmunet.errors import InputError

SLICE = re.compile(r"(case\d{4})_slice(\d{3})\.npz")
KEYS = ("image", "label")
ROUNDING = 1e-6
TRAIN_FOLDER, TEST_FOLDER = "train_npz", "test_vol_h5"


def prepared_cases(folder: Path) -> tuple[list[Case], list[Case]]:
    """The 18 training and the 12 test cases under `folder`, not yet read.

    Raises:
        InputError: a folder, a slice or a volume is missing, or there are too many.
    """
    slices_of: dict[str, list[Path]] = {}
    train_folder = _folder(folder, TRAIN_FOLDER)
    for path in sorted(train_folder.glob("*.npz")):
        match = SLICE.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path}: expected files such as case0005_slice000.npz here")
        slices_of.setdefault(match[1], []).append(path)
    test_folder = _folder(folder, TEST_FOLDER)
    volumes = {path.name.split(".")[0]: path for path in sorted(test_folder.glob("*.h5"))}
    for name in sorted(slices_of.keys() & volumes.keys()):
        raise InputError(f"{name}: this case is in {train_folder.name} and in {test_folder.name}")
    for name in TRAIN:
        slices = slices_of.get(name, [])
        expected = [train_folder / f"{name}_slice{i:03}.npz" for i in range(TRAIN_SLICES[name])]
        if slices != expected:
            odd = sorted(set(slices) ^ set(expected))[0]
            raise InputError(
                f"{odd}: {'not there' if odd in expected else 'one too many'}; {name} has "
                f"{len(expected)} slices in the published list of 2,211"
            )
    for place, names, known in (
        (train_folder, slices_of.keys(), TRAIN),
        (test_folder, volumes.keys(), TEST),
    ):
        for name in sorted(names ^ set(known)):
            what = "not there" if name in known else "not one of the published split"
            raise InputError(f"{place}: {name} is {what}; expected {', '.join(known)}")

    def train_case(name: str) -> Case:
        return Case(name, lambda: _stacked(slices_of[name]))

    def test_case(name: str) -> Case:
        return Case(name, lambda: _checked(volumes[name], *_read_h5(volumes[name]), 3))

    return [train_case(name) for name in TRAIN], [test_case(name) for name in TEST]


def _folder(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise InputError(
            f"{folder}: holds no {name}; give the folder with {TRAIN_FOLDER} and {TEST_FOLDER}"
        )
    return folder / name


def _stacked(paths: list[Path]) -> Pixels:
    slices = [_checked(path, *_read_npz(path), 2) for path in paths]
    for path, part in zip(paths, slices, strict=True):
        if part.image.shape != slices[0].image.shape:
            raise InputError(
                f"{path}: {part.image.shape} pixels, {paths[0].name} has {slices[0].image.shape}"
            )
    image, labels = (np.stack([getattr(s, key) for s in slices]) for key in ("image", "labels"))
    return Pixels(image, labels, None)


def _read_npz(path: Path) -> tuple[NDArray, NDArray]:
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as content:
            _check_keys(path, content)
            image, label = (content[key] for key in KEYS)
            return image, label
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # TypeError: a single array, as np.save writes it, under an npz's name
        raise InputError(f"{path}: not a whole npz of arrays ({error}); copy it again") from None


def _read_h5(path: Path) -> tuple[NDArray, NDArray]:
    import h5py

    try:
        with h5py.File(path, "r") as content:
            _check_keys(path, content)
            image, label = read_h5(path, content, KEYS)
            return image, label
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not a whole h5 file ({error}); copy it again") from None


def _check_keys(path: Path, content: Any) -> None:
    missing = [key for key in KEYS if key not in content]
    if missing:
        held = ", ".join(content.keys()) or "nothing"
        raise InputError(f"{path}: holds {held}; expected 'image' and 'label'")


def _checked(path: Path, image: NDArray, label: NDArray, axes: int) -> Pixels:
    if image.ndim != axes or image.shape != label.shape:
        raise InputError(
            f"{path}: image {image.shape} and label {label.shape}; expected {axes} axes, the same"
        )
    if not np.isfinite(image).all():
        raise InputError(f"{path}: {np.count_nonzero(~np.isfinite(image))} pixels are NaN or inf")
    if image.min() < -ROUNDING or image.max() > 1 + ROUNDING:
        raise InputError(
            f"{path}: intensities {image.min():g} to {image.max():g}; expected 0 to 1, as the "
            "published set has after clipping to -125..275 HU"
        )
    values = np.unique(label)
    odd = [value for value in values if value not in range(len(CLASSES) + 1)]
    if odd:
        raise InputError(f"{path}: label {odd[0]:g}; expected 0 to {len(CLASSES)}")
    return Pixels(image.astype(np.float32), label.astype(np.uint8), None)
