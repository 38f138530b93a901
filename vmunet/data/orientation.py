"""The orientation of an image and its mask: applied to both, or to neither.

A camera may store a photograph turned and add a tag that says so (Exif in JPEG, PNG and WebP, a tag
of TIFF). Programs differ in whether they heed it, so a mask that was drawn on such a photograph may
belong to the pixels as they are stored or as they are displayed. If both files have a tag, each is
turned as its own tag says. If only one has a tag other than 1 (as stored), the pair is refused.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.image_header import read_header
from vmunet.errors import InputError


def orientation_of(path: Path) -> int:
    """The file's orientation tag, 1 to 8; 1 (as stored) if it has none or is no image."""
    header = read_header(path.read_bytes())
    return header.orientation if header else 1


def upright_pair(
    image_path: Path, mask_path: Path, image: NDArray, mask: NDArray
) -> tuple[NDArray, NDArray]:
    """An image and its mask as they are displayed, from their pixels as stored.

    Raises:
        InputError: only one of the files has an orientation tag.
    """
    orientations = orientation_of(image_path), orientation_of(mask_path)
    if (orientations[0] == 1) != (orientations[1] == 1):
        tagged, plain = image_path, mask_path
        if orientations[1] != 1:
            tagged, plain = plain, tagged
        raise InputError(
            f"{tagged.name}: has the orientation tag {max(orientations)} (Exif), and {plain.name} "
            "has none, so the mask may belong to the pixels as stored or as displayed; save the "
            "one with the tag without it, turned as the other is"
        )
    return upright(image, orientations[0]), upright(mask, orientations[1])


def upright(pixels: NDArray, orientation: int) -> NDArray:
    """Pixels (height, width, ...) as they are displayed under an orientation tag, 1 to 8.

    Source: CIPA DC-008 (Exif), 4.6.4.A: where the first row and the first column are displayed.
    """
    if orientation >= 5:  # rows are displayed as columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
