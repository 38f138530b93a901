"""Read what a person drops on the page; a file that must not be decoded is refused before."""

import io
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.images import SUFFIXES, read_rgb
from vmunet.data.nifti import is_nifti
from vmunet.errors import InputError

MOST_BYTES = 100 * 2**20
MOST_PIXELS = 64_000_000  # above what phones make; segmenting so many takes 1.5 GB
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # what SUFFIXES stand for


def read_upload(name: str, content: bytes) -> NDArray[np.uint8]:
    """The pixels of an uploaded image, converted as `vmunet predict` converts files.

    Args:
        name: the file's name, for messages; a person chose it, so nothing relies on it.
        content: the file's bytes.

    Returns:
        uint8 (height, width, 3), RGB, on the pixel grid that the file stores.

    Raises:
        InputError: an empty file, a CT volume, no image, more than MOST_PIXELS by its header
            (nothing is decoded then), or an image that `vmunet.data.images.read_rgb` refuses.
    """
    name = plain_name(name)
    if not content:
        raise InputError(f"{name}: the file is empty; give an image ({', '.join(SUFFIXES)})")
    if is_nifti(Path(name)):
        raise InputError(
            f"{name}: a CT volume, and this page takes images; segment it with vmunet predict and "
            "weights that were trained on CT volumes"
        )
    check_pixels(name, content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)  # the reader takes files
        path.write_bytes(content)
        return read_rgb(path)[0]


def plain_name(name: str) -> str:
    """A name that is safe as a file's name: the last 80 letters, digits, spaces, points, - and _.

    Returns "image" if nothing is left.
    """
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w .-]", "_", last)[-80:].strip(" .") or "image"


def check_pixels(name: str, content: bytes) -> None:
    """Read an image's size from its header.

    Raises:
        InputError: it is no image of FORMATS, or has more than MOST_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                pixels = image.width * image.height
    except Image.DecompressionBombError:  # Pillow's own limit, which is higher
        pixels = MOST_PIXELS + 1
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise InputError(
            f"{name}: not an image, or damaged; give one of {', '.join(SUFFIXES)}"
        ) from None
    if pixels > MOST_PIXELS:
        raise InputError(
            f"{name}: has more than {MOST_PIXELS // 10**6} megapixels; make it smaller, or segment "
            "it with vmunet predict"
        )
