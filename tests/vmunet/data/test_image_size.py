"""The size in an image file's header, and the refusal of what would fill the memory."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from vmunet import InputError
from vmunet.data.image_header import read_header
from vmunet.data.image_size import check_file, stored_size

PICTURE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PICTURE).save(out, kind, **options)
    return out.getvalue()


FILES = {
    "png": encoded("PNG"),
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True, comment=b"x" * 1000),
    "with-preview": encoded("JPEG", exif=Image.Exif().tobytes() + encoded("JPEG")[:2000]),
    "bmp": encoded("BMP"),
    "webp": encoded("WEBP"),
    "webp-lossless": encoded("WEBP", lossless=True),
    "webp-extended": encoded("WEBP", exif=b"Exif\0\0" + b"\0" * 20),
    "tiff": encoded("TIFF"),
    "big-tiff": encoded("TIFF", big_tiff=True),
    "opencv-tiff": cv2.imencode(".tiff", PICTURE)[1].tobytes(),
    "opencv-16-bits": cv2.imencode(".png", PICTURE.astype(np.uint16))[1].tobytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_each_format_states_its_size(name):
    assert stored_size(io.BytesIO(FILES[name])) == (53, 37)


def test_the_other_byte_order():
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, n, 0) for tag, n in ((256, 53), (257, 37)))
    content = b"MM\0*" + struct.pack(">IH", 8, 2) + entries
    assert stored_size(io.BytesIO(content)) == (53, 37)


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(30), b"some text", bytes(64)])
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x.png: not a readable image"):
        check_file(path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_in_its_header_is_one_sentence(tmp_path, name):
    path = tmp_path / "x.jpg"
    for length in (3, 9, 13, 17):
        path.write_bytes(FILES[name][:length])
        with pytest.raises(InputError, match=r"x.jpg: "):
            check_file(path)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_header_is_no_error_of_the_reader(name):
    """Each beginning of a file, and each of its first bytes changed."""
    content = FILES[name]
    for length in range(min(len(content), 200)):
        read_header(content[:length])
        for byte in (0, 255):
            read_header(content[:length] + bytes([byte]) + content[length + 1 :])


def test_a_huge_image_is_named_with_its_size(tmp_path):
    path = tmp_path / "x.bmp"
    path.write_bytes(FILES["bmp"][:18] + struct.pack("<ii", 40_000, -20_000) + bytes(40))
    with pytest.raises(InputError, match=r"x\.bmp: 40000 x 20000 px, 800 megapixels; expected at"):
        check_file(path)
