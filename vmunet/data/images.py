"""Read photographs and masks; a file in doubt is converted by a rule or refused.

Photographs become 8-bit RGB by these rules, and each is counted: grayscale is repeated over three
channels; a fully opaque alpha channel is dropped; 16 bits become 8 by dividing by 257 (65535 is
255). A file is refused if its conversion would be a guess: if it has transparency, or has 16 bits
and uses fewer than 13 (a 12-bit camera's, whose white is unknown). A JPEG's orientation tag is
ignored, as in the published code: masks belong to the pixels as they are stored.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.data.image_size import check_pixels, size_in
from vmunet.errors import InputError

Array8 = NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# How the names of files end that belong to an image and are none themselves.
NOT_IMAGES = ("_superpixels", "_segmentation", "_mask", "_probability", "_overlay")
CONVERSIONS = ("grayscale", "alpha", "sixteen_bit")


def is_image(path: Path) -> bool:
    """Whether a path is an image by its name; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def decode(path: Path) -> NDArray:
    """The file's pixels as stored: (height, width) or (height, width, channels), channels BGR(A).

    Raises:
        InputError: the file cannot be read, or it is truncated.
    """
    content = path.read_bytes()
    if size := size_in(io.BytesIO(content)):
        check_pixels(*size, path.name)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InputError(
            f"{path.name}: not a readable image, or cut short ({len(content)} bytes); "
            "replace it with an intact copy"
        )
    return pixels


def read_rgb(path: Path) -> tuple[Array8, list[str]]:
    """A photograph as RGB uint8 (height, width, 3), and the CONVERSIONS that it needed.

    Raises:
        InputError: the file is unreadable, or its conversion would be a guess.
    """
    pixels = decode(path)
    conversions: list[str] = []
    if pixels.dtype == np.uint16:
        pixels = _to_eight_bits(path, pixels)
        conversions.append("sixteen_bit")
    if pixels.dtype != np.uint8:
        raise InputError(f"{path.name}: pixels are {pixels.dtype}; expected 8 or 16 bits unsigned")
    if pixels.ndim == 2:
        conversions.append("grayscale")
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), conversions  # type: ignore[return-value]
    if pixels.shape[2] == 4:
        if int(pixels[..., 3].min()) < 255:
            raise InputError(
                f"{path.name}: has transparent pixels, and the colour behind them is unknown; "
                "save it as RGB"
            )
        conversions.append("alpha")
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), conversions  # type: ignore[return-value]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), conversions  # type: ignore[return-value]


def _to_eight_bits(path: Path, pixels: NDArray) -> Array8:
    colours = pixels[..., :3] if pixels.ndim == 3 else pixels
    if 0 < int(colours.max()) < 2**12:
        raise InputError(
            f"{path.name}: a 16-bit image whose brightest value is {int(colours.max())}: its white "
            "is unknown; save it with 8 bits per channel"
        )
    return np.round(pixels / np.float32(257)).astype(np.uint8)


def read_mask(path: Path) -> tuple[Array8, bool]:
    """A mask as uint8 (height, width) of 0 and 255, and whether the file had another form.

    An empty mask is allowed. Values 0 and 1, and three equal channels, are accepted.

    Raises:
        InputError: the file is unreadable, or it holds other values.
    """
    pixels = decode(path)
    changed = pixels.ndim == 3
    if pixels.ndim == 3:
        colours = pixels[..., :3]
        if pixels.shape[2] == 4 or (colours != colours[..., :1]).any():
            raise InputError(f"{path.name}: a colour image; expected a mask of 0 and 255")
        pixels = np.ascontiguousarray(colours[..., 0])
    values = _values(pixels)
    if not (values <= {0, 255} or values <= {0, 1}) or pixels.dtype != np.uint8:
        shown = ", ".join(map(str, sorted(values)[:8])) + (", ..." if len(values) > 8 else "")
        raise InputError(
            f"{path.name}: a mask holds 0 and 255 (or 0 and 1) in 8 bits; this one holds {shown}"
            f" in {8 * pixels.itemsize} bits"
        )
    if 1 in values:
        return pixels * np.uint8(255), True  # type: ignore[return-value]
    return pixels, changed  # type: ignore[return-value]


def _values(pixels: NDArray) -> set[int]:
    if pixels.dtype != np.uint8:
        return {int(v) for v in np.unique(pixels)}
    histogram = cv2.calcHist([pixels], [0], None, [256], [0, 256])
    return {int(v) for v in np.flatnonzero(histogram)}
