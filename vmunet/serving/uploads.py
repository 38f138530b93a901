"""Read what a person drops on the page; a file that must not be decoded is refused before."""

import re
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmunet.data.images import SUFFIXES
from vmunet.data.nifti import is_nifti
from vmunet.errors import InputError
from vmunet.inference.files import read_photo

MOST_BYTES = 100 * 2**20


def read_upload(name: str, content: bytes) -> NDArray[np.uint8]:
    """The pixels of an uploaded image, converted as `vmunet predict` converts files.

    Args:
        name: the file's name, for messages; a person chose it, so nothing relies on it.
        content: the file's bytes.

    Returns:
        uint8 (height, width, 3), RGB, on the pixel grid that the file stores.

    Raises:
        InputError: an empty file, a CT volume, or an image that `read_photo` refuses.
    """
    name = plain_name(name)
    if not content:
        raise InputError(f"{name}: the file is empty; give an image ({', '.join(SUFFIXES)})")
    if is_nifti(Path(name)):
        raise InputError(
            f"{name}: a CT volume, and this page takes images; segment it with vmunet predict and "
            "weights that were trained on CT volumes"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)  # the reader takes files
        path.write_bytes(content)
        return read_photo(path)


def plain_name(name: str) -> str:
    """A name that is safe as a file's name: the last 80 letters, digits, spaces, points, - and _.

    Returns "image" if nothing is left.
    """
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w .-]", "_", last)[-80:].strip(" .") or "image"
