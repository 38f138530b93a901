"""Read masks of any number of classes.

A mask of one class holds 0 and 255, or 0 and 1 (`vmunet.data.images.read_mask`). In a mask of
several classes every pixel holds its class's number, 0 for the background, as 8 bits of gray or as
the index into a palette of labels (`vmunet.data.palettes`).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.images import Plane, binary, read_plane
from vmunet.data.palettes import Colour
from vmunet.errors import InputError

Labels = NDArray[np.uint8]


def read_labels(path: Path, classes: int) -> Labels:
    """A mask (height, width): 0 and 255 for one class, otherwise the numbers 0..classes.

    Raises:
        InputError: the file is unreadable, does not have one number per pixel, or holds other
            values.
    """
    return read_coloured_labels(path, classes)[0]


def read_coloured_labels(path: Path, classes: int) -> tuple[Labels, dict[int, Colour]]:
    """`read_labels`, and the colours of a label palette for `check_same_colours`."""
    plane = read_plane(path, classes)
    labels = binary(path, plane) if classes == 1 else _numbers(path, plane, classes)
    return labels, plane.colours


def _numbers(path: Path, plane: Plane, classes: int) -> Labels:
    labels = plane.numbers
    if labels.dtype != np.uint8:
        raise InputError(
            f"{path}: its pixels have {8 * labels.itemsize} bits; expected one number of 8 bits "
            f"per pixel, 0 to {classes}, as gray or with a palette"
        )
    if plane.bits == 1:
        labels = labels // np.uint8(255)  # OpenCV decodes a bit to 0 or 255
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    wrong = [int(value) for value in values if value > classes]
    if wrong:
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        raise InputError(
            f"{path}: holds {shown}; with {classes} classes a mask holds 0 (the background) "
            f"to {classes}, a class's number at each pixel"
        )
    return labels
