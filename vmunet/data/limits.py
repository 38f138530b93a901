"""Limits of what a file may unpack to, checked by its header before anything is unpacked.

A small file may promise terabytes. VMUNET_MAX_PIXELS and VMUNET_MAX_VOXELS raise the limits, and
so do the options --max-pixels and --max-voxels of the commands that read a person's files.
"""

import os
from collections.abc import Iterable
from math import prod

from vmunet.errors import InputError

MOST_PIXELS = 400_000_000  # of an image; in RGB, 1.2 GB
MOST_VOXELS = 500_000_000  # of a volume; a CT scan of a whole body has 400 million
MAX_PIXELS, MAX_VOXELS = "VMUNET_MAX_PIXELS", "VMUNET_MAX_VOXELS"  # environment variables


def most_pixels() -> int:
    """The largest number of pixels of an image."""
    return _limit(MAX_PIXELS, MOST_PIXELS)


def most_voxels() -> int:
    """The largest number of voxels of a volume."""
    return _limit(MAX_VOXELS, MOST_VOXELS)


def raise_limits(pixels: int | None = None, voxels: int | None = None) -> None:
    """Set the limits of this process and of those that it starts; None leaves one as it is.

    Raises:
        InputError: a number is below 1.
    """
    for name, option, number in (
        (MAX_PIXELS, "--max-pixels", pixels),
        (MAX_VOXELS, "--max-voxels", voxels),
    ):
        if number is not None:
            if number < 1:
                raise InputError(f"{option} {number}: expected a number above 0")
            os.environ[name] = str(number)


def check_voxels(shape: Iterable[int], name: object, most: int | None = None) -> None:
    """Refuse a volume, or another array, of more voxels than `most`, by default `most_voxels()`.

    Raises:
        InputError: it is too large.
    """
    sides, limit = [int(side) for side in shape], most or most_voxels()
    if prod(sides) > limit:
        raise InputError(
            f"{name}: its header promises {' x '.join(map(str, sides))} voxels; expected at most "
            f"{limit:,}: cut it into parts, or raise the limit with --max-voxels or {MAX_VOXELS}"
        )


def _limit(variable: str, most: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return most
    if not (text.isascii() and text.isdigit() and int(text)):
        raise InputError(f"{variable}={text}: expected a number above 0")
    return int(text)
