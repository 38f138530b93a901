"""Uploads: read as `vmunet predict` reads files, or refused in one sentence that names them."""

import struct
import tempfile
import zlib

import cv2
import numpy as np
import pytest

from tests.helpers.data import encoded, photograph
from vmunet import InputError
from vmunet.data import limits
from vmunet.data.images import read_rgb
from vmunet.serving.uploads import plain_name, read_upload


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def header_of_png(width: int, height: int) -> bytes:
    """A PNG of this size by its header, with no pixel in it."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + idat + chunk(b"IEND", b"")


RGB = photograph()
GREY = RGB[..., 0]
OPAQUE = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
SIXTEEN = RGB.astype(np.uint16) * 257


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("pixels", [RGB, GREY, OPAQUE, SIXTEEN], ids=["rgb", "grey", "rgba", "16"])
def test_an_image_is_read_as_vmunet_predict_reads_it(tmp_path, pixels, suffix):
    if pixels is SIXTEEN and suffix not in (".png", ".tif"):
        pytest.skip("no 16 bits in this format")
    content = encoded(pixels, suffix)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_upload(path.name, content), read_rgb(path)[0])


def refused(name: str, content: bytes) -> str:
    with pytest.raises(InputError) as raised:
        read_upload(name, content)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(plain_name(name))
    return message


def test_what_is_no_image_is_refused():
    assert "empty" in refused("a.png", b"")
    assert "not a readable image" in refused("text.png", b"Dear reader,\n" * 50)
    assert "not a readable image" in refused("gif.png", b"GIF89a" + bytes(50))  # no format of ours
    assert "cut short" in refused("cut.png", encoded(RGB)[:200])
    assert "vmunet predict" in refused("scan.nii.gz", b"\x1f\x8b" + bytes(50))
    half = OPAQUE.copy()
    half[0, 0, 3] = 7
    assert "transparent" in refused("half.png", encoded(half))
    assert "white is unknown" in refused("dim.png", encoded(SIXTEEN // 32))


@pytest.mark.parametrize("side", [20_001, 23_200, 60_000])
def test_a_huge_image_is_refused_by_its_header(monkeypatch, side):
    def decode(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    assert "at most 400" in refused("huge.png", header_of_png(side, side))


def test_the_limit_itself_is_allowed(monkeypatch):
    monkeypatch.setattr(limits, "MOST_PIXELS", 24 * 32)
    assert read_upload("a.png", encoded(RGB)).shape == (24, 32, 3)
    monkeypatch.setattr(limits, "MOST_PIXELS", 24 * 32 - 1)
    refused("a.png", encoded(RGB))


def test_nothing_stays_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read_upload("a.png", encoded(RGB))
    refused("cut.png", encoded(RGB)[:200])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("photo 1.jpg", "photo 1.jpg"),
        ("../../etc/passwd", "passwd"),
        (r"C:\pictures\a.png", "a.png"),
        ("..", "image"),
        ("", "image"),
        ("a\0b\n<i>.png", "a_b__i_.png"),
        ("läsion.png", "läsion.png"),
        ("x" * 300 + ".png", "x" * 76 + ".png"),
    ],
)
def test_a_name_can_do_no_harm(given, plain):
    assert plain_name(given) == plain
