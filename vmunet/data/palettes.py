"""The palette of a mask: grays stand for themselves, and colours only name the index.

A label palette, such as that of Pascal VOC's masks, gives each class a colour, and the index is the
class's number. A program that turns a colour picture into one with a palette numbers the colours in
an order of its own, and the numbers then mean nothing. The file does not say which it is. So
indices are believed only if the colours do not contradict them, here in one file and in
`check_same_colours` between files.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmunet.errors import InputError

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue, 0..255
ADVICE = "save the masks as 8-bit gray that holds each pixel's class number"


def is_gray(palette: NDArray[np.uint8]) -> bool:
    """Whether all colours of a palette, (colours, 3), are grays."""
    return bool((palette == palette[:, :1]).all())


def voc_colour(number: int) -> Colour:
    """The colour of a label, 0..255, in Pascal VOC's masks.

    The bits of the number go to the channels in turn, the lowest to the highest bit of red.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


def check_colours(path: Path, colours: Mapping[int, Colour], classes: int) -> None:
    """Refuse a mask whose colours say another class than its indices.

    Args:
        path: the mask, for messages.
        colours: of each index that occurs.
        classes: the number of classes without the background.

    Raises:
        InputError: an index is drawn in the gray of another class's number, such as black for
            another index than 0, or in Pascal VOC's colour of another class.
    """
    voc = {voc_colour(number): number for number in range(classes + 1)}
    for index, colour in sorted(colours.items()):
        gray = colour[0] if len(set(colour)) == 1 and colour[0] <= classes else None
        meant = voc.get(colour, gray)
        if meant is not None and meant != index:
            what = f"the gray {gray}" if gray is not None else f"Pascal VOC's colour of {meant}"
            raise InputError(
                f"{path.name}: its palette draws the index {index} in {what}, so the class is "
                f"{index} or {meant}: a guess; {ADVICE}"
            )


def check_same_colours(masks: Iterable[tuple[str, Mapping[int, Colour]]]) -> None:
    """Refuse masks that draw one index in two colours, or one colour for two indices.

    Args:
        masks: the file's name and the colours of its indices; empty for a mask without a label
            palette.

    Raises:
        InputError: two masks differ; it names both.
    """
    colour_of: dict[int, tuple[Colour, str]] = {}
    index_of: dict[Colour, tuple[int, str]] = {}
    for name, colours in masks:
        for index, colour in colours.items():
            first_colour, first = colour_of.setdefault(index, (colour, name))
            first_index, other = index_of.setdefault(colour, (index, name))
            if first_colour != colour:
                raise InputError(
                    f"{name}: its palette draws the index {index} in the colour {colour} and that "
                    f"of {first} in {first_colour}, so an index does not name a class; {ADVICE}"
                )
            if first_index != index:
                raise InputError(
                    f"{name}: its palette draws the index {index} in the colour {colour} and that "
                    f"of {other} the index {first_index}, so an index does not name a class; "
                    f"{ADVICE}"
                )
