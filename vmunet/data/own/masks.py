"""Read masks of any number of classes.

A mask of one class holds 0 and 255, or 0 and 1 (`vmunet.data.images.read_mask`). In a mask of
several classes every pixel holds its class's number, 0 for the background, as 8 bits of gray or as
the index into a palette.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.images import read_mask
from vmunet.errors import InputError

Labels = NDArray[np.uint8]
MODES = {"1": "black and white", "L": "8-bit gray", "P": "a palette"}  # Pillow's names


def read_labels(path: Path, classes: int) -> Labels:
    """A mask (height, width): 0 and 255 for one class, otherwise the numbers 0..classes.

    Raises:
        InputError: the file is unreadable, does not have one number per pixel, or holds other
            values.
    """
    return read_mask(path)[0] if classes == 1 else _read_indices(path, classes)


def _read_indices(path: Path, classes: int) -> Labels:
    from PIL import Image  # OpenCV would turn a palette's indices into colours

    try:
        with Image.open(path) as image:
            mode = image.mode
            labels = np.asarray(image, dtype=np.uint8) if mode in MODES else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path.name}: not a readable image, or cut short ({error}); replace it with an intact "
            "copy"
        ) from None
    if labels is None:
        raise InputError(
            f"{path}: its pixels are {mode}; expected one number of 8 bits per pixel, 0 to "
            f"{classes}, as gray or with a palette"
        )
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    wrong = [int(value) for value in values if value > classes]
    if wrong:
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        raise InputError(
            f"{path}: holds {shown}; with {classes} classes a mask holds 0 (the background) "
            f"to {classes}, a class's number at each pixel"
        )
    return labels
