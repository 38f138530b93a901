"""The foreground classes of a dataset: their names, and labels made from probabilities.

Label 0 is the background and label k the k-th name. One class is a probability a pixel; several
are a probability a pixel for the background and each class, and the likeliest is the label.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmunet.errors import InputError

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]

LESION = ("lesion",)  # the only class of ISIC, whose manifests and weights name no class
MOST = 255  # labels have 8 bits
NAME = re.compile(r"\w([\w .-]*[\w-])?")  # part of file names and of MLflow's metric names
# Reserved names: metrics.json and the model's channels have them beside the classes.
RESERVED = ("background", "dsc", "miou", "iou", "images", "hd95", "hd95_organs", "cases")


def classes_of(described: Mapping[str, Any], where: Path | str) -> tuple[str, ...]:
    """The foreground classes that a manifest or a checkpoint's metadata names: ("lesion",) if none.

    Args:
        described: may hold `classes`.
        where: the file, for the error.

    Raises:
        InputError: it is not a list of 1 to 255 names, two names differ only in upper and lower
            case, or a name cannot be part of a file's name or is reserved.
    """
    names = described.get("classes", LESION)
    if (
        not isinstance(names, list | tuple)
        or not 1 <= len(names) <= MOST
        or not all(isinstance(name, str) for name in names)
    ):
        raise InputError(f"{where}: classes is {names!r:.200}; expected 1 to {MOST} names")
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(
                f"{where}: the class name {name!r} cannot be part of a file's name; use letters, "
                "digits, spaces, points, - and _"
            )
        if name.casefold() in RESERVED:
            advice = (
                "label 0 is it already: list the others alone, from label 1 on"
                if name.casefold() == "background"
                else "metrics.json has a value of this name: choose another"
            )
            raise InputError(f"{where}: a class cannot be called {name!r}; {advice}")
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"{where}: two classes have the same name, in {', '.join(names)}")
    return tuple(names)


def channels_of(classes: Sequence[str]) -> int:
    """Output channels of a model: 1 for one class, else the background and each class."""
    return 1 if len(classes) == 1 else len(classes) + 1


def resized_planes(squares: Sequence[Floats], height: int, width: int) -> Iterator[Floats]:
    """Each class's probability at an image's own size, one class at a time, resized bilinearly.

    Args:
        squares: of each model (classes, size, size), 0..1; sizes may differ. Their mean is taken.

    Yields:
        float32 (height, width), 0..1, for one class after the other.
    """
    import cv2

    for planes in zip(*squares, strict=True):
        resized = [cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in planes]
        yield resized[0] if len(resized) == 1 else np.mean(resized, axis=0)


def likeliest(planes: Iterable[Floats]) -> tuple[Labels, Floats]:
    """The label of each pixel and its probability; if two are equal, the lower label.

    Only two planes are in memory at once: at 30 megapixels, nine would take a gigabyte.

    Args:
        planes: of each label (height, width), 0..1.
    """
    rest = iter(planes)
    best = next(rest).copy()
    labels = np.zeros(best.shape, np.uint8)
    for label, plane in enumerate(rest, start=1):
        higher = plane > best
        labels[higher] = label
        np.copyto(best, plane, where=higher)
    return labels, best
