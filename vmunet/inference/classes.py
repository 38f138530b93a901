"""Segment images with weights of several classes: labels instead of a mask.

What `vmunet.inference.ensemble` says of images, sizes and ensembles is true here too. Each class's
probability is resized bilinearly to the image's own size, and the likeliest label is taken there.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vmunet.classes import Floats, Labels, channels_of, likeliest, resized_planes
from vmunet.drawing.sheets import labels as label_sheet
from vmunet.errors import InputError
from vmunet.inference import ensemble
from vmunet.inference.ensemble import Member
from vmunet.inference.files import IMAGES, read_photo, segment_each, write_image
from vmunet.inference.tables import ClassPrediction


def segment_classes(
    members: Sequence[Member], image: np.ndarray, tta: bool = False
) -> tuple[Labels, Floats]:
    """The label of each pixel and that label's probability.

    Args:
        members: models of the same classes, of `vmunet.inference.ensemble.load_members`; their
            probabilities are averaged.
        image: uint8 (height, width, 3), RGB, 0..255, any height and width.
        tta: average over the image, its two mirror images and both mirrorings.

    Returns:
        uint8 labels, 0 the background, and float32 0..1, both (height, width).

    Raises:
        InputError: another image layout, members with different classes or with only one, or
            weights that give NaN or infinite values.
    """
    height, width = image.shape[:2]
    return likeliest(resized_planes(_squares(members, image, tta), height, width))


def _squares(members: Sequence[Member], image: np.ndarray, tta: bool) -> list[Floats]:
    """The probabilities (classes + 1, size, size) of each member, at its own size."""
    if len({m.classes for m in members}) != 1 or len(members[0].classes) == 1:
        raise InputError("members: expected models of the same classes, of several")
    channels = channels_of(members[0].classes)
    return [
        ensemble.probabilities(m.model, image, m.size, m.resize, channels, tta).numpy()
        for m in members
    ]


def segment_class_files(
    members: Sequence[Member],
    files: Sequence[Path],
    out: Path,
    *,
    tta: bool,
    probabilities: bool,
    overlay: bool,
) -> list[ClassPrediction]:
    """Write the labels of image files into `out`, as `vmunet.inference.images.segment_folder` says.

    Raises:
        InputError: before anything is written if two files would have the same name; after the
            rest was segmented if single images could not be read, naming each.
    """
    classes = members[0].classes
    if probabilities:
        names = Counter(f"{file.stem}_{name}" for file in files for name in classes)
        if twice := [name for name, n in names.items() if n > 1]:
            raise InputError(
                f"two of the images and classes would write {twice[0]}_probability.png; segment "
                "them into different folders"
            )

    def segment(file: Path) -> tuple[np.ndarray, list[Floats]]:
        image = read_photo(file)
        return image, _squares(members, image, tta)

    def write(file: Path, segmented: tuple[np.ndarray, list[Floats]]) -> list[ClassPrediction]:
        image, squares = segmented
        height, width = image.shape[:2]
        planes = resized_planes(squares, height, width)
        if probabilities:
            planes = _written(planes, [out / f"{file.stem}_{name}" for name in classes])
        labels, best = likeliest(planes)
        if overlay:
            drawn = label_sheet.overlay(image, labels, classes)
            write_image(out / f"{file.stem}_overlay.jpg", drawn)
        write_image(out / f"{file.stem}_mask.png", labels)
        return [ClassPrediction.of(file, labels, best, classes)]

    return segment_each(files, out, IMAGES, segment, write)


def _written(planes: Iterator[Floats], places: Sequence[Path]) -> Iterator[Floats]:
    """Pass the planes on and write each except the background's; all at once may be gigabytes."""
    yield next(planes)
    for plane, place in zip(planes, places, strict=True):
        pixels = np.rint(plane.clip(0, 1) * 65535).astype(np.uint16)
        write_image(place.with_name(f"{place.name}_probability.png"), pixels)
        yield plane
