"""The size of an image, read from its file's header: a small file may decode to gigabytes.

The headers are those of the formats that this project reads: PNG (its specification, 11.2.2), BMP,
JPEG (ITU-T T.81, B.2.2), WebP (RFC 9649) and TIFF (revision 6.0, and BigTIFF).
"""

import struct
from pathlib import Path
from typing import BinaryIO

from vmunet.data.limits import MAX_PIXELS, most_pixels
from vmunet.errors import InputError

# JPEG's markers that begin a frame: C0 to CF without tables (C4, CC) and the extension C8.
FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}
TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags


def check_pixels(width: int, height: int, name: object) -> None:
    """Refuse an image of more than `most_pixels()`; `name` is the file's, or what it is.

    Raises:
        InputError: it is too large.
    """
    if width * height > (most := most_pixels()):
        raise InputError(
            f"{name}: {width} x {height} px, {width * height / 1e6:.0f} megapixels; expected at "
            f"most {most / 1e6:g}: make it smaller, cut it into parts, or raise the limit with "
            f"--max-pixels or {MAX_PIXELS}"
        )


def check_file(path: Path) -> None:
    """Refuse an image file of more than `most_pixels()` without decoding it.

    Raises:
        InputError: it is too large, or no JPEG, PNG, BMP, TIFF or WebP.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = size_in(file)
    if size is None:
        raise InputError(
            f"{path.name}: not a readable image; expected the content of a JPEG, PNG, BMP, TIFF or "
            "WebP file: replace it with an intact copy"
        )
    check_pixels(*size, path.name)


def size_in(file: BinaryIO) -> tuple[int, int] | None:
    """`stored_size`; None also if the file ends within its header."""
    try:
        return stored_size(file)
    except (struct.error, IndexError, OverflowError):
        return None


def stored_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height in px that the header of an open file states; None if it is of no known
    format.

    Raises:
        struct.error, IndexError, OverflowError: the file ends within its header.
    """
    head = file.read(32)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack(">II", head[16:24])
    if head.startswith(b"BM"):
        if head[14] == 12:  # OS/2
            return struct.unpack("<HH", head[18:22])
        width, height = struct.unpack("<ii", head[18:26])
        return abs(width), abs(height)  # negative: rows from the top
    if head.startswith(b"\xff\xd8"):
        return _jpeg(file)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(file, head)
    return None


def _jpeg(file: BinaryIO) -> tuple[int, int]:
    """From segment to segment to the first frame."""
    file.seek(2)
    while True:
        while file.read(1)[0] != 0xFF:
            pass
        while (marker := file.read(1)[0]) == 0xFF:  # fill bytes
            pass
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no segment follows
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker in FRAMES:
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(length - 2, 1)


def _webp(head: bytes) -> tuple[int, int] | None:
    if len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    return None


def _tiff(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """The two tags of the first directory, which is what OpenCV decodes."""
    order = "<" if head.startswith(b"II") else ">"
    big = b"+" in head[2:4]
    (start,) = struct.unpack(order + ("8xQ" if big else "4xI"), head[: 16 if big else 8])
    counts, entries = ("Q", "HHQQ") if big else ("H", "HHII")
    counts, entries = order + counts, order + entries
    file.seek(start)
    (count,) = struct.unpack(counts, file.read(struct.calcsize(counts)))
    found = {}
    for _ in range(min(count, 1000)):
        entry = file.read(struct.calcsize(entries))
        tag, kind, _values, value = struct.unpack(entries, entry)
        if kind == 3:  # 16 bits, at the beginning of the value's field
            (value,) = struct.unpack(order + "H", entry[-8 if big else -4 :][:2])
        found[tag] = value
    if TIFF_WIDTH not in found or TIFF_HEIGHT not in found:
        return None
    return found[TIFF_WIDTH], found[TIFF_HEIGHT]
