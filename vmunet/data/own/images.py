"""Write your own images and masks as the arrays that training and evaluation map into memory.

The layout is that of `vmunet.data.preprocess`, with groups.txt beside ids.txt if patients are
known: one patient's name in each line, in the arrays' order. Masks of one class are like ISIC's.
Masks of several classes hold class numbers, in masks.npy and in native_masks.zip: they take the
nearest pixel under both protocols, because the mean of the classes 1 and 3 is not class 2.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.data.images import read_rgb
from vmunet.data.orientation import orientation_of, upright, upright_pair
from vmunet.data.own.masks import read_coloured_labels, read_labels
from vmunet.data.own.split import Sample
from vmunet.data.palettes import Colour, check_same_colours
from vmunet.data.preprocess import write_native_masks, write_subset
from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.protocols import Protocol

Array8 = NDArray[np.uint8]


@dataclass(frozen=True)
class CheckedPair:
    """A pair's entries for the manifest and the checks.

    Attributes:
        width, height: in pixels.
        classes: those in its mask.
        colours: of the mask's label palette, by index; empty if it has none.
        image_sha256, mask_sha256: of the files.
    """

    width: int
    height: int
    classes: tuple[int, ...]
    colours: dict[int, Colour]
    image_sha256: str
    mask_sha256: str


def write_own_images(
    target: Path,
    name: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    classes: Sequence[str],
    size: int,
    protocols: Sequence[Protocol],
) -> dict[str, Any]:
    """Read and check all pairs and write `target`/<protocol>/; return the manifest.

    Args:
        target: data/arrays/<name>, written completely or not at all.
        name: the dataset's name, for the manifests.
        train, test: the two parts.
        classes: names of the masks' values 1, 2, ...
        size: side of the square arrays, px.
        protocols: each decides how images, and masks of one class, are resized.

    Raises:
        InputError: a file is broken, a mask has another size than its image or holds other
            values, only one of the two has an orientation tag, palettes contradict each other, or
            the same image is in both parts; `target` is unchanged.
    """
    samples = {sample.id: sample for sample in (*train, *test)}
    checked: dict[str, CheckedPair] = {}

    def read(key: str) -> tuple[Array8, Array8]:
        image, mask, checked[key] = read_pair(samples[key], len(classes))
        return image, mask

    with whole_folder(target) as folder:
        for subset, part in (("train", train), ("test", test)):
            ids = [sample.id for sample in part]
            write_subset(folder, subset, ids, read, size, protocols, labels=len(classes) > 1)
            for protocol in protocols:
                _write_groups(folder / protocol.name / subset / "groups.txt", part)
        _refuse_copies(train, test, checked)
        in_order = sorted(checked)
        check_same_colours((Path(samples[k].mask).name, checked[k].colours) for k in in_order)
        write_native_masks(folder, _encoded_masks(test, len(classes)), protocols)
        manifest = _counts(name, train, test, classes, checked) | {"view": name, "size": size}
        for protocol in protocols:
            text = json.dumps(manifest | {"protocol": protocol.name}, indent=1) + "\n"
            (folder / protocol.name / "manifest.json").write_text(text)
    return manifest


def read_pair(sample: Sample, classes: int) -> tuple[Array8, Array8, CheckedPair]:
    """The image (height, width, 3) in RGB, the mask (height, width) and the pair's entries.

    Both are as they are displayed (`vmunet.data.orientation`).

    Raises:
        InputError: as `write_own_images`.
    """
    image_path, mask_path = Path(sample.image), Path(sample.mask)
    for path in (image_path, mask_path):
        if not path.is_file():
            raise InputError(f"{path}: the file is gone; run the own_split stage again")
    image = read_rgb(image_path)[0]
    mask, colours = read_coloured_labels(mask_path, classes)
    image, mask = upright_pair(image_path, mask_path, image, mask)
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"the mask {mask_path} is {mask.shape[1]}x{mask.shape[0]} pixels, and its image "
            f"{image_path.name} {image.shape[1]}x{image.shape[0]}; a mask has its image's size"
        )
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[1:]) + 1
    present = tuple(int(v) for v in values) if classes > 1 else (1,) * len(values)
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (image_path, mask_path)]
    height, width = mask.shape
    return image, mask, CheckedPair(width, height, present, colours, sums[0], sums[1])


def _write_groups(path: Path, part: Sequence[Sample]) -> None:
    if all(sample.patient for sample in part):
        path.write_text("".join(f"{sample.patient}\n" for sample in part), encoding="utf-8")


def _refuse_copies(
    train: Sequence[Sample], test: Sequence[Sample], checked: dict[str, CheckedPair]
) -> None:
    trained = {checked[sample.id].image_sha256: sample for sample in train}
    for sample in test:
        if twin := trained.get(checked[sample.id].image_sha256):
            raise InputError(
                f"{Path(twin.image).name} trains and {Path(sample.image).name} tests, and they "
                "are the same file; remove one of them, or give both the same patient in a csv"
            )


def _encoded_masks(test: Sequence[Sample], classes: int) -> Iterator[tuple[str, bytes]]:
    for sample in test:
        path = Path(sample.mask)
        mask = upright(read_labels(path, classes), orientation_of(path))
        yield sample.id, cv2.imencode(".png", mask)[1].tobytes()


def _counts(
    name: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    classes: Sequence[str],
    checked: dict[str, CheckedPair],
) -> dict[str, Any]:
    """The manifest's counts; `images_with` counts, for each class, the images that show it."""
    ordered = [checked[key] for key in sorted(checked)]
    patients = {sample.patient for sample in (*train, *test)} - {""}

    def images_with(part: Sequence[Sample]) -> dict[str, int]:
        return {
            label: sum(number in checked[sample.id].classes for sample in part)
            for number, label in enumerate(classes, start=1)
        }

    return {
        "dataset": name,
        "source": "own",
        "classes": list(classes),
        "n_train": len(train),
        "n_test": len(test),
        "patients": len(patients) or None,
        "native_min": [min(f.width for f in ordered), min(f.height for f in ordered)],
        "native_max": [max(f.width for f in ordered), max(f.height for f in ordered)],
        "empty_masks": sum(not f.classes for f in ordered),
        "images_with": {"train": images_with(train), "test": images_with(test)},
        "sha256": {
            "images": _sum_of((key, checked[key].image_sha256) for key in sorted(checked)),
            "masks": _sum_of((key, checked[key].mask_sha256) for key in sorted(checked)),
        },
    }


def _sum_of(files: Iterator[tuple[str, str]]) -> str:
    """One SHA-256 over the ids and the files' SHA-256, in the ids' order."""
    lines = "".join(f"{key} {digest}\n" for key, digest in files)
    return hashlib.sha256(lines.encode()).hexdigest()
