"""From checked pairs to the arrays that training and evaluation map into memory.

Both protocols stretch each photograph by its own minimum and maximum at its own size, then resize
it once; images are kept as 8 bits. The published code augments first, then resizes, and keeps
floats: both are named deviations of the `paper` protocol.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vmunet.data.arrays import BINARY_LEVEL
from vmunet.data.images import read_mask, read_rgb
from vmunet.data.resize import min_max, resize_image, resize_mask
from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.protocols import Protocol
from vmunet.threads import in_threads

SUBSETS = ("train", "test")
NATIVE_MASKS = "native_masks.zip"
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # an image and its mask
FIXED_DATE = (2017, 1, 1, 0, 0, 0)  # so that the same masks give the same bytes
KEPT = ("dataset", "source", "n_train", "n_test", "native_min", "native_max", "empty_masks")


def write_arrays(
    raw: Path, target: Path, view: str, size: int, protocols: Sequence[Protocol]
) -> None:
    """Write `target`/<protocol>/ for every protocol (layout: `vmunet.data.arrays`).

    Args:
        raw: data/raw/<dataset>, as `write_raw` leaves it.
        target: data/arrays/<view>, written completely or not at all.
        view: the view's name, for the manifests.
        size: side of the square arrays in pixels.
        protocols: each decides how images and masks are resized.

    Raises:
        InputError: `raw` is missing or incomplete; `target` is unchanged.
    """
    manifest = _raw_manifest(raw)
    soft = bool(manifest.get("soft_masks"))

    def read(key: str) -> Pair:
        photo = read_rgb(_image_path(raw, key))[0]
        return photo, read_mask(raw / "masks" / f"{key}.png", soft)[0]

    with whole_folder(target) as folder:
        for subset in SUBSETS:
            write_subset(folder, subset, manifest[subset], read, size, protocols)
        masks = ((key, (raw / "masks" / f"{key}.png").read_bytes()) for key in manifest["test"])
        write_native_masks(folder, masks, protocols)
        for protocol in protocols:
            facts = {"view": view, "size": size, "protocol": protocol.name}
            facts |= {name: manifest[name] for name in KEPT} | {"archives": manifest["archives"]}
            facts |= {"soft_masks": manifest["soft_masks"]} if soft else {}
            text = json.dumps(facts, indent=1) + "\n"
            (folder / protocol.name / "manifest.json").write_text(text)


def _raw_manifest(raw: Path) -> dict[str, Any]:
    path = raw / "manifest.json"
    if not path.exists():
        raise InputError(f"{path}: not found; run the download stage first")
    return json.loads(path.read_text())


def write_subset(
    folder: Path,
    subset: str,
    ids: list[str],
    read: Callable[[str], Pair],
    size: int,
    protocols: Sequence[Protocol],
    labels: bool = False,
) -> None:
    """Write `folder`/<protocol>/<subset>/: images.npy, masks.npy and ids.txt.

    Args:
        folder, subset: the place to write to.
        ids: the images, in the order of the arrays.
        read: a function from an id to its image, uint8 RGB (height, width, 3), and its mask, uint8
            (height, width). Where targets are binary, a soft mask is the lesion at >= 0.5.
        size: side of the square arrays in pixels.
        protocols: each decides how images and masks are resized.
        labels: whether masks hold class numbers; they take the nearest pixel in every protocol.
    """
    images, masks = {}, {}
    for protocol in protocols:
        place = folder / protocol.name / subset
        place.mkdir(parents=True)
        (place / "ids.txt").write_text("".join(f"{key}\n" for key in ids))
        shape = (len(ids), size, size)
        images[protocol.name] = open_memmap(place / "images.npy", "w+", np.uint8, (*shape, 3))
        masks[protocol.name] = open_memmap(place / "masks.npy", "w+", np.uint8, shape)

    def write_row(row: int) -> None:
        image, mask = read(ids[row])
        photograph = min_max(image)
        for protocol in protocols:
            resized = resize_image(photograph, size, protocol.resize)
            images[protocol.name][row] = np.rint(resized)
            how = "nearest" if labels else protocol.mask_resize
            is_binary = how == "nearest" and not labels
            target = (mask >= BINARY_LEVEL) * np.uint8(255) if is_binary else mask
            masks[protocol.name][row] = resize_mask(target, size, how)

    in_threads(write_row, range(len(ids)), f"preprocessing {subset}")
    for array in (*images.values(), *masks.values()):
        array.flush()


def _image_path(raw: Path, key: str) -> Path:
    for suffix in (".jpg", ".png"):
        path = raw / "images" / f"{key}{suffix}"
        if path.exists():
            return path
    raise InputError(f"{raw / 'images' / key}.jpg: not found; run the download stage again")


def write_native_masks(
    folder: Path, masks: Iterable[tuple[str, bytes]], protocols: Sequence[Protocol]
) -> None:
    """Zip the test masks, (id, PNG) at their own size; every protocol's folder gets the same."""
    places = [folder / protocol.name / "test" / NATIVE_MASKS for protocol in protocols]
    with zipfile.ZipFile(places[0], "w", zipfile.ZIP_STORED) as archive:
        for key, content in masks:
            archive.writestr(zipfile.ZipInfo(f"{key}.png", FIXED_DATE), content)
    for place in places[1:]:
        shutil.copyfile(places[0], place)
