"""Read photographs and masks; a file in doubt is converted by a rule or refused.

Photographs become 8-bit RGB by these rules, and each is counted: grayscale is repeated over three
channels; a fully opaque alpha channel is dropped; 16 bits become 8 by dividing by 257 (65535 is
255). A file is refused if its conversion would be a guess: if it has transparency, holds several
pictures (pages, frames), or has 16 bits and uses fewer than 13 (a 12-bit camera's, whose white is
unknown).

Pixels are read as they are stored, whatever the file's orientation tag says.
`vmunet.data.orientation` turns an image and its mask alike.
"""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.data.image_header import Header, as_indices, as_stored, read_header
from vmunet.data.image_size import check_pixels, size_in
from vmunet.data.palettes import Colour, check_colours, is_gray
from vmunet.errors import InputError

Array8 = NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# How the names of files end that belong to an image and are none themselves.
NOT_IMAGES = ("_superpixels", "_segmentation", "_mask", "_probability", "_overlay")
CONVERSIONS = ("grayscale", "alpha", "sixteen_bit")


def is_image(path: Path) -> bool:
    """Whether a path is an image by its name; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_file(path: Path) -> tuple[bytes, Header]:
    """An image file's content and what its header says.

    Raises:
        InputError: it is of no known format, ends within its header, holds several pictures,
            or has more pixels than `vmunet.data.limits.most_pixels`.
    """
    content = path.read_bytes()
    header = read_header(content)
    if header is None:
        raise InputError(_unreadable(path, content))
    if header.format == "GIF":
        raise InputError(
            f"{path.name}: holds a GIF, whatever its name says, which may be an animation of 256 "
            "colours; save the picture that is meant as PNG"
        )
    if header.pictures > 1:
        raise InputError(
            f"{path.name}: holds {header.pictures} pictures (the pages or frames of a "
            f"{header.format}), and an image is one; save each as a file of its own"
        )
    size = size_in(io.BytesIO(content))
    if size is None:
        raise InputError(_unreadable(path, content))
    check_pixels(*size, path.name)
    return content, header


def decode(path: Path) -> NDArray:
    """The file's pixels as stored: (height, width) or (height, width, channels), channels BGR(A).

    Raises:
        InputError: as `read_file`; the file cannot be decoded, or it is truncated.
    """
    content, header = read_file(path)
    return _decoded(path, as_stored(content, header))


def _decoded(path: Path, content: bytes) -> NDArray:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InputError(_unreadable(path, content))
    return pixels


def _unreadable(path: Path, content: bytes) -> str:
    return (
        f"{path.name}: not a readable image, or cut short ({len(content)} bytes); replace it with "
        "an intact copy"
    )


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


class Plane(NamedTuple):
    """A mask's file as one number for each pixel.

    Attributes:
        numbers: uint8 or uint16 (height, width).
        bits: of a pixel, as the file stores it.
        rewritten: whether the file has another form than a plane of gray.
        colours: of a label palette, the colour (RGB) of each number that occurs; otherwise empty.
    """

    numbers: NDArray
    bits: int
    rewritten: bool
    colours: dict[int, Colour]


def read_plane(path: Path, classes: int) -> Plane:
    """A mask's numbers, for a mask of so many classes.

    Gray is the number itself. So are three equal channels, and a palette of grays: a program chose
    it to make a gray file smaller, and the indices are in an order of its own. In a palette of
    colours the index is the number (`vmunet.data.palettes`). An opaque alpha channel is dropped.

    Raises:
        InputError: the file is unreadable, in colours, or transparent, or the colours of its
            palette contradict their indices.
    """
    content, header = read_file(path)
    if header.palette is not None:
        return _by_palette(path, content, header, header.palette, classes)
    pixels = _decoded(path, as_stored(content, header))
    if pixels.ndim == 2:
        return Plane(pixels, min(header.bits, 8 * pixels.itemsize), False, {})
    colours = pixels[..., :3]
    if (colours != colours[..., :1]).any():
        raise InputError(
            f"{path.name}: a colour image; expected a mask, one number for each pixel: save it as "
            "8-bit gray or with a palette of labels"
        )
    if pixels.shape[2] == 4 and int(pixels[..., 3].min()) < np.iinfo(pixels.dtype).max:
        raise InputError(
            f"{path.name}: has transparent pixels, and whether they are background is unknown; "
            "save the mask as 8-bit gray"
        )
    return Plane(np.ascontiguousarray(colours[..., 0]), 8 * pixels.itemsize, True, {})


def _by_palette(
    path: Path, content: bytes, header: Header, palette: NDArray[np.uint8], classes: int
) -> Plane:
    if header.format == "TIFF" and header.bits != 8:
        raise InputError(
            f"{path.name}: a TIFF with a palette of {header.bits} bits; expected 8 bits: save the "
            "mask as PNG"
        )
    indices = _decoded(path, as_indices(content, header))
    if header.format == "PNG":
        indices //= 255 // (2**header.bits - 1)  # decoding stretched them to 0..255
    values = _values(indices)
    if max(values) >= len(palette):
        raise InputError(
            f"{path.name}: damaged, it holds the index {max(values)} and {len(palette)} colours; "
            "save the mask again"
        )
    if is_gray(palette):
        return Plane(palette[indices, 0], header.bits, True, {})
    colours = {k: (int(palette[k, 0]), int(palette[k, 1]), int(palette[k, 2])) for k in values}
    check_colours(path, colours, classes)
    return Plane(indices, header.bits, True, colours)


def read_mask(path: Path, soft: bool = False) -> tuple[Array8, bool]:
    """A mask of one class as uint8 (height, width) of 0 and 255, and whether the file had another
    form.

    An empty mask is allowed. The values 0 and 1 are accepted.

    Args:
        soft: accept 8 bits of gray, 255 times the lesion's share of a pixel, as they are.

    Raises:
        InputError: as `read_plane`, or the file holds other values.
    """
    plane = read_plane(path, 1)
    if soft and plane.numbers.dtype == np.uint8 and not plane.colours and is_soft(plane.numbers):
        return plane.numbers, plane.rewritten
    return binary(path, plane), plane.rewritten or 1 in _values(plane.numbers)


def is_soft(mask: Array8) -> bool:
    """Whether a mask's levels are more than 0 and 255, and not the numbers 0 and 1."""
    values = _values(mask)
    return not (values <= {0, 255} or values <= {0, 1})


def binary(path: Path, plane: Plane) -> Array8:
    """The numbers of a mask of one class as 0 and 255.

    Raises:
        InputError: it holds other values than 0 and 255, or 0 and 1.
    """
    values = _values(plane.numbers)
    allowed = ({0, 1},) if plane.colours else ({0, 255}, {0, 1})
    if plane.numbers.dtype != np.uint8 or not any(values <= pair for pair in allowed):
        shown = ", ".join(map(str, sorted(values)[:8])) + (", ..." if len(values) > 8 else "")
        expected = "0 and 1 as indices of colours" if plane.colours else "0 and 255 (or 0 and 1)"
        raise InputError(
            f"{path.name}: a mask holds {expected} in 8 bits; this one holds {shown}"
            f" in {8 * plane.numbers.itemsize} bits"
        )
    return plane.numbers * np.uint8(255) if 1 in values else plane.numbers


def _values(pixels: NDArray) -> set[int]:
    if pixels.dtype != np.uint8:
        return {int(v) for v in np.unique(pixels)}
    histogram = cv2.calcHist([pixels], [0], None, [256], [0, 256])
    return {int(v) for v in np.flatnonzero(histogram)}
