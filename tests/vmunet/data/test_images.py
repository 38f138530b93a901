"""Single files: conversion by rules, refused files, and resizing."""

import io

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from tests.helpers.data import blob, encoded, photograph
from vmunet.data.images import read_mask, read_rgb
from vmunet.data.orientation import orientation_of, upright
from vmunet.data.own.masks import read_labels
from vmunet.data.palettes import voc_colour
from vmunet.data.resize import min_max, resize_image, resize_mask
from vmunet.errors import InputError


@pytest.fixture
def file(tmp_path):
    def write(content: bytes | np.ndarray, name: str = "ISIC_1.png"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else encoded(content))
        return path

    return write


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_rgb_is_read_as_it_is(file):
    pixels = photograph()
    image, taken = read_rgb(file(pixels))
    np.testing.assert_array_equal(image, pixels[..., ::-1])
    assert taken == []


def test_grayscale_is_repeated(file):
    gray = photograph()[..., 0]
    image, taken = read_rgb(file(gray))
    np.testing.assert_array_equal(image, np.stack([gray] * 3, axis=-1))
    assert taken == ["grayscale"]


def test_an_opaque_alpha_channel_is_dropped(file):
    pixels = photograph()
    image, taken = read_rgb(file(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])))
    np.testing.assert_array_equal(image, pixels[..., ::-1])
    assert taken == ["alpha"]


def test_transparency_is_refused(file):
    pixels = np.dstack([photograph(), np.full((24, 32), 254, np.uint8)])
    with pytest.raises(InputError, match=r"ISIC_1\.png: has transparent pixels"):
        read_rgb(file(pixels))


def test_sixteen_bits_become_eight(file):
    pixels = photograph()
    image, taken = read_rgb(file(pixels.astype(np.uint16) * 257))
    np.testing.assert_array_equal(image, pixels[..., ::-1])
    assert taken == ["sixteen_bit"]
    assert read_rgb(file(pixels[..., 0].astype(np.uint16) * 257))[1] == ["sixteen_bit", "grayscale"]


def test_sixteen_bits_of_which_twelve_are_used_are_refused(file):
    with pytest.raises(InputError, match=r"ISIC_1\.png: a 16-bit image whose brightest value is"):
        read_rgb(file(photograph().astype(np.uint16) * 16))


def test_the_orientation_tag_is_ignored(file):
    plain = encoded(photograph(), ".jpg")
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06"
    exif += b"\x00\x00\x00\x00\x00\x00"
    tagged = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    turned = cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (32, 24, 3)  # the tag is a real one
    assert read_rgb(file(tagged, "a.jpg"))[0].shape == (24, 32, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_agrees_what_an_orientation_tag_means(file, orientation):
    """Every format is read as stored, and `upright` turns it as Pillow does."""
    tag = Image.Exif()
    tag[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        path = file(saved(Image.fromarray(photograph()), kind, exif=tag, lossless=True))
        assert orientation_of(path) == orientation
        stored = read_rgb(path)[0]
        np.testing.assert_array_equal(stored, photograph())
        with Image.open(path) as image:
            shown = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(upright(stored, orientation), shown)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_file_of_several_pictures_is_refused_with_their_number(file, kind):
    pages = [Image.fromarray(photograph(seed=seed)) for seed in range(3)]
    path = file(saved(pages[0], kind, save_all=True, append_images=pages[1:]))
    for read in (read_rgb, read_mask):
        with pytest.raises(InputError, match=r"ISIC_1\.png: holds 3 pictures"):
            read(path)


def test_a_tiffs_smaller_copy_of_the_picture_is_no_page(file):
    small = Image.fromarray(photograph()[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    content = saved(Image.fromarray(photograph()), "TIFF", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_rgb(file(content))[0], photograph())


def test_the_content_of_a_gif_is_named(file):
    with pytest.raises(InputError, match=r"ISIC_1\.png: holds a GIF"):
        read_rgb(file(saved(Image.fromarray(blob()), "GIF")))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [0, 0.02, 0.5, 0.95])
def test_a_truncated_image_is_named(file, suffix, keep):
    content = encoded(photograph(60, 80), suffix)
    path = file(content[: int(len(content) * keep)], "ISIC_2" + suffix)
    with pytest.raises(InputError, match=rf"ISIC_2\{suffix}: not a readable image, or cut short"):
        read_rgb(path)


def test_something_else_is_not_an_image(file):
    with pytest.raises(InputError, match="not a readable image"):
        read_mask(file(b"<html></html>"))


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (0, 0), (255, 255), (1, 1)])
def test_masks_of_two_values_are_read_as_0_and_255(file, values):
    inside = blob() > 0
    mask, changed = read_mask(file(np.where(inside, values[1], values[0]).astype(np.uint8)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(inside, values[1] > 0, values[0] > 0) * 255)
    assert changed == (1 in values)


def test_three_equal_channels_are_one_mask(file):
    mask, changed = read_mask(file(np.stack([blob()] * 3, axis=-1)))
    np.testing.assert_array_equal(mask, blob())
    assert changed


@pytest.mark.parametrize("alpha", [255, 254])
def test_gray_with_alpha_is_a_mask_if_it_is_opaque(file, alpha):
    image = Image.fromarray(np.dstack([blob(), np.full_like(blob(), alpha)]), "LA")
    path = file(saved(image, "PNG"))
    if alpha == 255:
        np.testing.assert_array_equal(read_mask(path)[0], blob())
    else:
        with pytest.raises(InputError, match="has transparent pixels"):
            read_mask(path)


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]  # as published
OWN = [(0, 0, 0), (9, 200, 9), (255, 255, 255), (200, 9, 9), (7, 7, 7)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (VOC, [0, 1, 2, 3]),
        (OWN, [0, 1, 2, 3]),
        ([(n, n, n) for n in range(5)], [0, 1, 2, 3]),
        ([(n, n, n) for n in (3, 0, 1, 2)], [3, 0, 1, 2]),  # what a program makes of gray
        ([(2, 2, 2), *OWN[1:]], "index 0 in the gray 2, so the class is 0 or 2"),
        ([OWN[1], (0, 0, 0), *OWN[2:]], "index 1 in the gray 0"),
        ([VOC[k] for k in (0, 2, 1, 3)], "index 1 in Pascal VOC's colour of 2"),
        ([(85 * n,) * 3 for n in range(4)], "holds 85, 170, 255"),
    ],
)
def test_a_palette_never_changes_the_class_in_silence(file, kind, colours, expected):
    indices = np.tile(np.arange(4, dtype=np.uint8), (5, 3))
    image = Image.fromarray(indices, "P")
    image.putpalette([value for colour in colours for value in colour])
    path = file(saved(image, kind))
    if isinstance(expected, list):
        np.testing.assert_array_equal(read_labels(path, 3), np.uint8(expected)[indices])
    else:
        with pytest.raises(InputError, match=expected):
            read_labels(path, 3)


def test_a_label_palette_of_one_class(file):
    image = Image.fromarray(blob() // 255, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    np.testing.assert_array_equal(read_mask(file(saved(image, "PNG")))[0], blob())
    image.putpalette([9, 9, 99, 0, 0, 0])
    with pytest.raises(InputError, match="index 1 in the gray 0"):
        read_mask(file(saved(image, "PNG")))
    void = Image.fromarray(blob(), "P")  # 255 is what Pascal VOC leaves unlabelled
    void.putpalette([value for number in range(256) for value in voc_colour(number)])
    with pytest.raises(InputError, match=r"holds 0 and 1 as indices .* this one holds 0, 255"):
        read_mask(file(saved(void, "PNG")))


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_truncated_palette_mask_is_named(file, keep):
    image = Image.fromarray(photograph(60, 80)[..., 0] % 4, "P")
    image.putpalette([value for colour in VOC for value in colour])
    content = saved(image, "PNG")
    with pytest.raises(InputError, match="not a readable image, or cut short"):
        read_labels(file(content[: int(keep * len(content))]), 3)


def test_the_colours_of_pascal_voc():
    assert [voc_colour(number) for number in range(5)] == VOC
    assert (voc_colour(15), voc_colour(255)) == ((192, 128, 128), (224, 224, 192))


@pytest.mark.parametrize(
    ("pixels", "shown"),
    [
        (np.where(blob() > 0, 128, 0).astype(np.uint8), "0, 128 in 8 bits"),
        (np.where(blob() > 0, 254, 0).astype(np.uint8), "0, 254 in 8 bits"),
        (np.tile(np.uint8([0, 1, 255]), (6, 4)), "0, 1, 255 in 8 bits"),
        (np.arange(256, dtype=np.uint8).reshape(16, 16), r"0, 1, 2, 3, 4, 5, 6, 7, \.\.\."),
        (blob().astype(np.uint16) * 257, "0, 65535 in 16 bits"),
        (photograph(), "a colour image"),
    ],
)
def test_masks_with_other_values_are_named_with_them(file, pixels, shown):
    with pytest.raises(InputError, match=rf"ISIC_1_segmentation\.png: .*{shown}"):
        read_mask(file(pixels, "ISIC_1_segmentation.png"))


def test_a_jpeg_of_a_mask_is_refused(file):
    with pytest.raises(InputError, match="a mask holds 0 and 255"):
        read_mask(file(encoded(cv2.circle(blob(), (20, 15), 7, 255, -1), ".jpg")))


images = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@given(images)
def test_min_max_spans_0_to_255_and_keeps_the_order(image):
    stretched = min_max(image)
    assert stretched.dtype == np.float32
    if image.min() == image.max():
        assert not stretched.any()
    else:
        assert stretched.min() == 0
        assert stretched.max() == pytest.approx(255, abs=1e-4)
        assert stretched.max() <= 255
        order = np.argsort(image, axis=None, kind="stable")
        assert (np.diff(stretched.ravel()[order]) >= 0).all()


def test_min_max_is_the_published_normalisation():
    image = photograph(40, 50) // 2 + 30
    standard = (image - 159.922) / 28.871  # the published mean and deviation, ISIC 2017 training
    published = (standard - standard.min()) / (standard.max() - standard.min()) * 255
    np.testing.assert_allclose(min_max(image), published, atol=1e-4)


@pytest.mark.parametrize("shape", [(96, 128), (30, 20), (64, 64), (20, 90)])
def test_bilinear_is_torchs_without_antialiasing(shape):
    image = photograph(*shape).astype(np.float32)
    channels_first = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(
        channels_first, (64, 64), mode="bilinear", align_corners=False, antialias=False
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(resize_image(image, 64, "bilinear"), expected, atol=2e-2)


def test_area_averages_every_pixel_when_it_shrinks():
    image = photograph(64, 96).astype(np.float32)
    means = image.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(image, 32, "area"), means, atol=1e-3)


def test_area_is_bilinear_along_an_axis_that_grows():
    image = photograph(16, 96).astype(np.float32)
    narrow = image.reshape(16, 32, 3, 3).mean(axis=2)
    np.testing.assert_allclose(
        resize_image(image, 32, "area"), resize_image(narrow, 32, "bilinear"), atol=1e-3
    )


sizes = st.integers(1, 80)


@given(sizes, sizes, st.integers(1, 64), st.integers(0, 2**31))
def test_nearest_masks_stay_binary(height, width, size, seed):
    mask = np.random.default_rng(seed).integers(0, 2, (height, width), np.uint8) * np.uint8(255)
    resized = resize_mask(mask, size, "nearest")
    assert resized.shape == (size, size)
    assert resized.dtype == np.uint8
    assert set(np.unique(resized)) <= set(np.unique(mask))


def test_nearest_takes_the_pixel_at_the_centre():
    mask = np.zeros((9, 9), np.uint8)
    mask[1::3, 1::3] = 255
    assert (resize_mask(mask, 3, "nearest") == 255).all()


def test_bilinear_masks_are_soft_and_round_to_255ths():
    mask = np.repeat(np.uint8([[0, 255]]), 2, axis=0)
    np.testing.assert_array_equal(resize_mask(mask, 4, "bilinear")[0], [0, 64, 191, 255])
    assert (resize_mask(mask, 1, "bilinear") == 128).all()  # a half counts as lesion: 128/255
