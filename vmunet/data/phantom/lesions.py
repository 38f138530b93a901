"""Procedural images like dermoscopy, with known masks, for runs without a download.

Skin is rendered as light through layers of pigment (Beer-Lambert): an illuminated skin tone times
exp(-melanin * its absorption - blood * its absorption), which gives the field's browns, reds and
blacks from two densities. The lesion is a multi-lobed star-shaped field; its pigment follows that
field with an edge that is sharp on one side and fades on another, so that no threshold of darkness
finds the mask, but a network can. Phantoms test the pipeline; scores on them say nothing about
skin.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.data.isic.official import Archive, IsicDataset, dataset_named
from vmunet.data.phantom import artefacts
from vmunet.data.phantom.skin import Field, illuminated_skin, skin_pigment, smooth_noise, squeezed

MELANIN_ABSORPTION = np.array([0.42, 0.80, 1.15], np.float32)  # red, green, blue
BLOOD_ABSORPTION = np.array([0.06, 0.62, 0.50], np.float32)
CHANCE = {"hair": 0.3, "ruler": 0.15, "vignette": 0.2, "pale": 0.15, "lobed": 0.5}
FIRST_ID = 9_000_000  # above the ids of both challenges
FIXED_DATE = (2017, 1, 1, 0, 0, 0)  # in every zip entry, so that a rerun gives the same bytes


@dataclass(frozen=True)
class Phantom:
    """One image with its truth.

    Attributes:
        image: uint8 (height, width, 3), RGB, 0..255.
        mask: uint8 (height, width), 0 skin or 255 lesion.
        attributes: the difficulties that it has: hair, ruler, vignette, pale, lobed, ...
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    attributes: dict[str, bool]


def phantom(seed: int, index: int, height: int, width: int) -> Phantom:
    """Phantom number `index` of the series `seed`, the same bits every time.

    Args:
        seed: of the whole series; index: of the phantom in it, from 0.
        height, width: in pixels, at least 32.
    """
    rng = np.random.default_rng([seed, index])
    has = {name: bool(rng.random() < chance) for name, chance in CHANCE.items()}
    depth, mask = _lesion_shape(rng, height, width, lobed=has["lobed"])
    melanin, blood = skin_pigment(rng, height, width)
    lesion_melanin, lesion_blood, veil = _lesion_pigment(rng, depth, mask, pale=has["pale"])
    absorbed = (melanin + lesion_melanin)[..., None] * MELANIN_ABSORPTION
    absorbed += (blood + lesion_blood)[..., None] * BLOOD_ABSORPTION
    image = illuminated_skin(rng, height, width) * np.exp(-absorbed)
    artefacts.blend(image, veil, np.array([0.62, 0.66, 0.76], np.float32))
    for name in ("hair", "ruler", "vignette"):
        if has[name]:
            getattr(artefacts, f"add_{name}")(image, rng)
    return Phantom(_photograph(rng, image), mask, has)


def _lesion_shape(
    rng: np.random.Generator, height: int, width: int, lobed: bool
) -> tuple[Field, NDArray[np.uint8]]:
    """The lesion's depth field (0 on its border, 1 at its centre, below 0 outside) and its mask."""
    unit = min(height, width)
    area = np.clip(np.exp(rng.normal(np.log(0.18), 0.7)), 0.02, 0.55) * height * width
    stretch = float(np.exp(rng.normal(0, 0.22)))
    turn = rng.uniform(0, np.pi)
    radius = float(np.sqrt(area / np.pi))
    room = np.clip(0.5 - 0.8 * radius / np.array([height, width]), 0.02, 0.2)
    cy, cx = np.array([height, width]) * (0.5 + rng.uniform(-1, 1, 2) * room)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    warp = unit * 0.02
    y = y - np.float32(cy) + warp * smooth_noise(rng, height, width, unit / 6)
    x = x - np.float32(cx) + warp * smooth_noise(rng, height, width, unit / 6)
    u = (np.cos(turn) * x + np.sin(turn) * y) / np.float32(radius * stretch)
    v = (np.cos(turn) * y - np.sin(turn) * x) / np.float32(radius / stretch)
    depth = 1 - np.sqrt(u**2 + v**2) / _outline(rng, np.arctan2(v, u), lobed)
    if lobed:
        for _ in range(int(rng.integers(1, 4))):
            angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.65)
            away = rng.uniform(0.55, 0.95)
            du, dv = u - away * np.cos(angle), v - away * np.sin(angle)
            lobe = (1 - np.sqrt(du**2 + dv**2) / size) * size
            depth = np.logaddexp(depth * 9, lobe * 9, dtype=np.float32) / 9
    mask = _one_region(depth > 0)
    return depth.astype(np.float32), mask


def _outline(rng: np.random.Generator, angle: Field, lobed: bool) -> Field:
    """Border distance by direction: a Fourier series whose coefficients fall with frequency."""
    outline = np.ones_like(angle)
    for k in range(2, 10):
        amplitude = rng.normal(0, (0.42 if lobed else 0.2) / k**1.4)
        outline += np.float32(amplitude) * np.cos(k * angle + np.float32(rng.uniform(0, 6.3)))
    return np.clip(outline, 0.35, 1.8)


def _one_region(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The largest connected region as an annotator would draw it: one outline, no holes."""
    contours, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    mask = np.zeros(inside.shape, np.uint8)
    if contours:
        cv2.drawContours(mask, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return mask


def _lesion_pigment(
    rng: np.random.Generator, depth: Field, mask: NDArray[np.uint8], pale: bool
) -> tuple[Field, Field, Field]:
    """Melanin and blood that the lesion adds, and the opacity of a blue-white veil over it."""
    height, width = depth.shape
    unit = min(height, width)
    edge = 0.06 + 0.4 * squeezed(smooth_noise(rng, height, width, unit / 2)) * rng.random()
    ragged = depth + 0.05 * smooth_noise(rng, height, width, unit / 25)
    inside = 1 / (1 + np.exp(-np.clip(ragged / edge * 3, -30, 30)))
    inside *= cv2.GaussianBlur(mask, (0, 0), unit / 30).astype(np.float32) / 255 * 0.6 + 0.4
    amount = rng.uniform(0.2, 0.4) if pale else rng.uniform(0.8, 1.8)
    body = 1 + rng.uniform(0.1, 0.4) * smooth_noise(rng, height, width, unit / rng.uniform(5, 12))
    if rng.random() < 0.5:  # an eccentric dark focus, or a lighter zone of regression
        focus = squeezed(smooth_noise(rng, height, width, unit / 3.5))
        body += rng.uniform(-0.9, 1.2) * focus**2
    body += _pattern(rng, height, width)
    melanin = amount * inside * np.clip(body, 0.12, 3)
    redness = rng.uniform(0.1, 0.4) if pale else rng.exponential(0.2)
    blood = redness * inside * (0.4 + squeezed(smooth_noise(rng, height, width, unit / 5)))
    veil = np.zeros_like(depth)
    if rng.random() < 0.15:
        patch = squeezed(smooth_noise(rng, height, width, unit / 4)) * np.clip(depth * 2.5, 0, 1)
        veil = (rng.uniform(0.3, 0.6) * patch).astype(np.float32)
    return melanin.astype(np.float32), blood.astype(np.float32), veil


def _pattern(rng: np.random.Generator, height: int, width: int) -> Field:
    """Dermoscopic structure as a relative melanin change: network, globules, or neither."""
    grain = smooth_noise(rng, height, width, min(height, width) * rng.uniform(0.022, 0.04))
    kind = rng.choice(["network", "globules", "homogeneous"], p=[0.4, 0.3, 0.3])
    if kind == "network":
        return rng.uniform(0.3, 0.8) * (np.clip(1 - np.abs(grain) * 1.6, 0, 1) - 0.35)
    if kind == "globules":
        return rng.uniform(0.4, 1.0) * np.clip(grain - 0.7, 0, 1)
    return 0.08 * grain


def _photograph(rng: np.random.Generator, image: Field) -> NDArray[np.uint8]:
    """Defocus, sensor noise and JPEG: float32 0..1 in, uint8 0..255 out."""
    noise = rng.uniform(0.002, 0.014) * rng.standard_normal(image.shape, np.float32)
    seen = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9)) + noise
    pixels = np.clip(seen * 255, 0, 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(65, 96))]
    _, encoded = cv2.imencode(".jpg", pixels, quality)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def write_archives(folder: Path, dataset: str, training: int, validation: int, seed: int) -> None:
    """Write the dataset's four zips with the official names and layout, filled with phantoms.

    Sizes vary and are not square (96 to 192 pixels wide). The same arguments give the same bytes;
    each dataset has its own phantoms. Their ids are no photograph's of the two challenges.

    Args:
        folder: existing folder to write into.
        dataset: isic17 or isic18.
        training, validation: phantoms in each part.
        seed: of the series.
    """
    facts = dataset_named(dataset)
    validation_at = _spread(training + validation, validation)
    series = seed * 10_000 + int(dataset.removeprefix("isic"))
    for part in ("training", "validation"):
        images, masks = (_archive_of(facts, part, kind) for kind in ("images", "masks"))
        with _new_zip(folder / images.name) as image_zip, _new_zip(folder / masks.name) as mask_zip:
            for index in range(training + validation):
                if (index in validation_at) == (part == "validation"):
                    _write_pair(image_zip, mask_zip, images, masks, series, index)


def _spread(total: int, count: int) -> set[int]:
    """`count` of the indices below `total`, evenly spread, as official parts interleave ids."""
    return {(2 * k + 1) * total // (2 * count) for k in range(count)}


def _archive_of(dataset: IsicDataset, part: str, kind: str) -> Archive:
    return next(a for a in dataset.archives if (a.part, a.kind) == (part, kind))


def _new_zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)  # its contents are compressed already


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), content)


def _write_pair(
    image_zip: zipfile.ZipFile,
    mask_zip: zipfile.ZipFile,
    images: Archive,
    masks: Archive,
    series: int,
    index: int,
) -> None:
    size_rng = np.random.default_rng([series, index, 1])
    width = int(size_rng.integers(96, 193))
    height = round(width * size_rng.choice([0.67, 0.75, 0.75, 0.8, 1.2]))
    made = phantom(series, index, height, width)
    key = f"ISIC_{FIRST_ID + index}"
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(made.image, cv2.COLOR_RGB2BGR), quality)
    _add(image_zip, f"{images.folder}/{key}.jpg", jpeg.tobytes())
    _, png = cv2.imencode(".png", made.mask)
    _add(mask_zip, f"{masks.folder}/{key}_segmentation.png", png.tobytes())
