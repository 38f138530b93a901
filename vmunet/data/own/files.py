"""Pair images with their masks by the names of the files in two folders.

An image `abc.jpg` has the mask `abc.png`, `abc_mask.png` or `abc_segmentation.png`. A volume
`case1.nii.gz`, or `case1_0000.nii.gz` as nnU-Net names it, has the labels `case1.nii.gz`. Files
named *_overlay, *_probability or *_superpixels are ignored, and so are subfolders. An id is the
file's name without its suffix, with a _ for every space, because lists of ids are split at spaces,
and in Unicode's composed form (NFC): macOS writes an accent as a character of its own.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmunet.data.images import NOT_IMAGES, SUFFIXES
from vmunet.errors import InputError

LOSSLESS = (".png", ".bmp", ".tif", ".tiff")  # WebP may be lossless or not
MASK_ENDING = re.compile(r"_(mask|segmentation)$", re.IGNORECASE)
VOLUME = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's ending for a channel of an image
SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """An image or a volume, and its mask or label map."""

    id: str
    image: Path
    mask: Path


def pair_images(images: Path, masks: Path) -> list[Pair]:
    """The pairs of a folder of images and a folder of masks, sorted by id.

    The two folders may be the same one.

    Raises:
        InputError: a folder is missing or empty, an image has no mask or a mask no image, two
            files have the same id, or a mask is saved in a format that loses values.
    """
    files = [p for p in listing(images, SUFFIXES) if not p.stem.lower().endswith(NOT_IMAGES)]
    if not files:
        raise InputError(f"{images}: no images; expected {', '.join(SUFFIXES)} files")
    same = images.resolve() == masks.resolve()
    others = set(files) if same else set()
    mask_files = [p for p in listing(masks, SUFFIXES) if p not in others and _may_be_mask(p)]
    by_id = _by_id((clean_id(path.stem), path) for path in files)
    masks_by_id = _by_id((clean_id(MASK_ENDING.sub("", p.stem)), p) for p in mask_files)
    expected = "expected {0}.png, {0}_mask.png or {0}_segmentation.png"
    pairs = _matched(images, masks, by_id, masks_by_id, expected)
    lossy = [p.mask.name for p in pairs if p.mask.suffix.lower() not in LOSSLESS]
    if lossy:
        raise InputError(
            f"{masks}: {len(lossy)} masks are JPEG or WebP ({shown(lossy)}), whose compression "
            f"changes values; save masks as {', '.join(LOSSLESS)} from the original annotation"
        )
    return pairs


def _may_be_mask(path: Path) -> bool:
    stem = path.stem.lower()
    return bool(MASK_ENDING.search(stem)) or not stem.endswith(NOT_IMAGES)


def pair_volumes(images: Path, masks: Path) -> list[Pair]:
    """The pairs of a folder of NIfTI volumes and a folder of label maps, sorted by id.

    Raises:
        InputError: as `pair_images`; the folders are the same; a case has several channels.
    """
    if images.resolve() == masks.resolve():
        raise InputError(
            f"{images}: images and masks are the same folder, and a label map has its volume's "
            "name; put them into two folders"
        )
    stems = {path: VOLUME.sub("", path.name) for path in listing(images, (".nii", ".nii.gz"))}
    if not stems:
        raise InputError(f"{images}: no volumes; expected .nii.gz or .nii files")
    several = [stem for stem in stems.values() if _other_channel(stem, set(stems.values()))]
    if several:
        raise InputError(
            f"{images}: {len(several)} files are further channels of a case ({shown(several)}); "
            "a volume has one channel: keep only the _0000 file, the one to segment"
        )
    by_id = _by_id((clean_id(_without_channel(stem)), path) for path, stem in stems.items())
    labels = listing(masks, (".nii", ".nii.gz"))
    masks_by_id = _by_id((clean_id(VOLUME.sub("", path.name)), path) for path in labels)
    return _matched(images, masks, by_id, masks_by_id, "expected {0}.nii.gz or {0}.nii")


def _other_channel(stem: str, stems: set[str]) -> bool:
    channel = CHANNEL.search(stem)
    return bool(channel and channel[1] != "0000" and CHANNEL.sub("_0000", stem) in stems)


def _without_channel(stem: str) -> str:
    return stem.removesuffix("_0000")


def clean_id(stem: str) -> str:
    """The id that belongs to a file's name without its suffix."""
    return re.sub(r"\s", "_", unicodedata.normalize("NFC", stem))


def listing(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder with one of these suffixes, without hidden ones, sorted.

    Raises:
        InputError: there is no such folder, or a name is not UTF-8, which no list can hold.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; correct its path in params.yaml's own")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.is_file()
    )
    printable = [os.fsencode(path.name).decode("utf-8", "backslashreplace") for path in files]
    foreign = [name for name, path in zip(printable, files, strict=True) if name != path.name]
    if foreign:
        raise InputError(
            f"{folder}: {len(foreign)} names are not UTF-8 ({shown(foreign)}); rename these files"
        )
    return files


def _by_id(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    by_id: dict[str, Path] = {}
    for key, path in files:
        if (first := by_id.setdefault(key, path)) != path:
            raise InputError(
                f"{first} and {path.name}: two files of the id {key}; keep or rename one of them"
            )
    return by_id


def _matched(
    images: Path, masks: Path, by_id: dict[str, Path], masks_by_id: dict[str, Path], expected: str
) -> list[Pair]:
    without_mask = sorted(by_id.keys() - masks_by_id.keys())
    if without_mask:
        raise InputError(
            f"{masks}: no mask for {len(without_mask)} of {len(by_id)} images "
            f"({shown(without_mask)}); {expected.format(without_mask[0])}: add the masks, or "
            "remove these images"
        )
    without_image = sorted(masks_by_id.keys() - by_id.keys())
    if without_image:
        raise InputError(
            f"{images}: no image for {len(without_image)} of {len(masks_by_id)} masks "
            f"({shown(without_image)}); add the images, or remove these masks"
        )
    return [Pair(key, by_id[key], masks_by_id[key]) for key in sorted(by_id)]


def shown(names: list[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
