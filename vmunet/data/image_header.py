"""What an image file says of itself besides its size: pictures, orientation and palette.

The formats are those that this project reads: PNG (its specification, chunks acTL, eXIf and PLTE),
JPEG (its Exif segment), WebP (RFC 9649), BMP and TIFF (revision 6.0, and BigTIFF). GIF is known
only to be named.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PNG = b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\0\0"
COLOUR_TYPE = 9  # its place in the data of PNG's IHDR
PALETTE = 3  # PNG's colour type, and TIFF's photometric interpretation
# TIFF's tags
KIND, BITS, PHOTOMETRIC, ORIENTATION, COLOURS = 254, 258, 262, 274, 320
NO_PICTURE = 0b101  # bits of KIND: a smaller copy, or the transparency, of another picture
SHORT = 3  # TIFF's type of 16 bits
MOST_DIRECTORIES = 100_000
# What reading beyond a file's end, or at a place that it misstates, raises.
DAMAGE = (struct.error, IndexError, KeyError, ValueError, OverflowError)


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        format: PNG, JPEG, WebP, BMP, TIFF or GIF.
        pictures: pages of a TIFF, frames of an animation; of a GIF they are not counted.
        orientation: 1 to 8 as Exif and TIFF number them; 1 is as stored.
        bits: of a sample, or of an index into the palette.
        palette: uint8 (colours, 3), RGB; None if the pixels hold colours or grays themselves.
    """

    format: str
    pictures: int = 1
    orientation: int = 1
    bits: int = 8
    palette: NDArray[np.uint8] | None = None


def read_header(content: bytes) -> Header | None:
    """The header of a file; None if it is of no known format or ends within its header."""
    try:
        if content.startswith(PNG):
            return _png(content)
        if content.startswith(b"\xff\xd8"):
            return Header("JPEG", orientation=_exif(_jpeg_exif(content)))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp(content)
        if content.startswith(b"BM"):
            return _bmp(content)
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(content)
        return Header("GIF") if content.startswith(b"GIF8") else None
    except DAMAGE:
        return None


def as_stored(content: bytes, header: Header) -> bytes:
    """The same file without a TIFF's orientation: OpenCV applies it, even if told to ignore it."""
    if header.format != "TIFF" or header.orientation == 1:
        return content
    return _with_tag(content, ORIENTATION, 1)


def as_indices(content: bytes, header: Header) -> bytes:
    """The same file as a gray one whose grays are the indices into its palette.

    A PNG of fewer than 8 bits is decoded to grays that are stretched to 0..255.
    """
    if header.format == "PNG":
        parts = [PNG]
        for name, start, end in _chunks(content):
            if name == b"IHDR":
                changed = bytearray(content[start + 4 : end - 4])  # the name and the data
                changed[4 + COLOUR_TYPE] = 0  # gray
                parts.append(content[start : start + 4] + changed)
                parts.append(struct.pack(">I", zlib.crc32(changed)))
            elif name not in (b"PLTE", b"tRNS"):
                parts.append(content[start:end])
        return b"".join(parts)
    if header.format == "BMP":
        assert header.palette is not None
        start, size = _bmp_palette(content)
        grays = b"".join(bytes((n, n, n, 0))[:size] for n in range(len(header.palette)))
        return content[:start] + grays + content[start + len(grays) :]
    return _with_tag(as_stored(content, header), PHOTOMETRIC, 1)  # gray, 0 is black


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The names of a PNG's chunks, and where each begins and ends, with its length and checksum."""
    start = len(PNG)
    while start + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, start)
        yield name, start, (start := start + 12 + length)


def _png(content: bytes) -> Header:
    first: dict[bytes, bytes] = {}
    for name, start, end in _chunks(content):
        if name != b"IDAT":
            first.setdefault(name, content[start + 8 : end - 4])
    bits, colour_type = first[b"IHDR"][8], first[b"IHDR"][COLOUR_TYPE]
    (frames,) = struct.unpack(">I", first[b"acTL"][:4]) if b"acTL" in first else (1,)
    palette = None
    if colour_type == PALETTE:
        palette = np.frombuffer(first[b"PLTE"], np.uint8).reshape(-1, 3)
    return Header("PNG", max(frames, 1), _exif(first.get(b"eXIf", b"")), bits, palette)


def _jpeg_exif(content: bytes) -> bytes:
    """The Exif block that stands before the pixels, or nothing."""
    at = 2
    while True:
        while content[at] != 0xFF:
            at += 1
        while content[at] == 0xFF:  # fill bytes
            at += 1
        marker = content[at]
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no segment follows
            continue
        if marker in (0xD9, 0xDA):  # the end, or the pixels
            return b""
        (length,) = struct.unpack_from(">H", content, at)
        if marker == 0xE1 and content[at + 2 : at + 8] == EXIF:
            return content[at + 2 : at + length]
        at += length


def _webp(content: bytes) -> Header:
    at, frames, exif = 12, 0, b""
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        frames += name == b"ANMF"
        if name == b"EXIF":
            exif = content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return Header("WebP", max(frames, 1), _exif(exif))


def _bmp_palette(content: bytes) -> tuple[int, int]:
    """Where a BMP's palette begins, and the bytes of an entry."""
    (header,) = struct.unpack_from("<I", content, 14)
    return 14 + header, 3 if header == 12 else 4  # 12: OS/2


def _bmp(content: bytes) -> Header:
    start, size = _bmp_palette(content)
    (bits,) = struct.unpack_from("<H", content, 24 if size == 3 else 28)
    if not 1 <= bits <= 8:
        return Header("BMP")
    colours = 0 if size == 3 else struct.unpack_from("<I", content, 46)[0]
    count = min(colours or 2**bits, 2**bits)
    entries = np.frombuffer(content[start : start + size * count], np.uint8).reshape(-1, size)
    return Header("BMP", bits=bits, palette=entries[:, 2::-1].copy())  # stored blue first


def _exif(block: bytes) -> int:
    """The orientation in an Exif block; 1 if it states none or is damaged."""
    try:
        directory = next(_directories(block.removeprefix(EXIF)), {})
        return _orientation(directory)
    except DAMAGE:
        return 1


def _orientation(directory: "dict[int, Entry]") -> int:
    value = directory[ORIENTATION].first if ORIENTATION in directory else 1
    return value if 1 <= value <= 8 else 1


@dataclass(frozen=True)
class Entry:
    """A tag's entry in a TIFF directory.

    Attributes:
        place: where its value begins in the file.
        code: the value's type as `struct` writes it, with the byte order.
        count: how many values there are.
        first: the first value.
    """

    place: int
    code: str
    count: int
    first: int


def _directories(content: bytes) -> Iterator[dict[int, Entry]]:
    """The directories of a TIFF, each with its whole numbers of 8, 16 and 32 bits by tag."""
    if content[:2] not in (b"II", b"MM"):
        return
    order = "<" if content.startswith(b"II") else ">"
    big = b"+" in content[2:4]
    count_code, offset_code = (order + "Q", order + "Q") if big else (order + "H", order + "I")
    field, step = (8, 20) if big else (4, 12)
    (start,) = struct.unpack_from(offset_code, content, 8 if big else 4)
    seen: set[int] = set()
    while start and start not in seen and len(seen) < MOST_DIRECTORIES:
        seen.add(start)
        (entries,) = struct.unpack_from(count_code, content, start)
        at = start + struct.calcsize(count_code)
        found: dict[int, Entry] = {}
        for _ in range(min(entries, 1000)):
            tag, kind = struct.unpack_from(order + "HH", content, at)
            (count,) = struct.unpack_from(offset_code, content, at + 4)
            place = at + 4 + field
            if kind in (1, SHORT, 4):
                code = order + {1: "B", SHORT: "H", 4: "I"}[kind]
                if count * struct.calcsize(code) > field:
                    (place,) = struct.unpack_from(offset_code, content, place)
                found[tag] = Entry(place, code, count, *struct.unpack_from(code, content, place))
            at += step
        yield found
        (start,) = struct.unpack_from(offset_code, content, at)


def _tiff(content: bytes) -> Header:
    directories = list(_directories(content))
    first = directories[0]
    pages = sum(not (d[KIND].first & NO_PICTURE if KIND in d else 0) for d in directories)
    bits = first[BITS].first if BITS in first else 1
    palette = None
    if PHOTOMETRIC in first and first[PHOTOMETRIC].first == PALETTE:
        entry = first[COLOURS]
        values = np.frombuffer(content, entry.code, entry.count, entry.place).reshape(3, -1).T
        # 16 bits; some programs write 8
        palette = (values >> 8 if values.max(initial=0) > 255 else values).astype(np.uint8)
    return Header("TIFF", max(pages, 1), _orientation(first), bits, palette)


def _with_tag(content: bytes, tag: int, value: int) -> bytes:
    """The same TIFF with another value of a tag in its first directory."""
    entry = next(_directories(content))[tag]
    changed = bytearray(content)
    struct.pack_into(entry.code, changed, entry.place, value)
    return bytes(changed)
