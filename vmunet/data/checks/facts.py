"""Measure each photograph and its mask, in whatever state they are."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vmunet.data.checks.hashes import SIDE, thumbnail
from vmunet.data.checks.jpegs import complaints
from vmunet.data.images import decode, read_mask, read_rgb
from vmunet.errors import InputError
from vmunet.threads import in_threads

SUBSETS = ("train", "test")
MEASURED = 256  # the longest side, in pixels, at which a photograph's statistics are taken


@dataclass(frozen=True)
class Photo:
    """A photograph.

    Attributes:
        width, height: in pixels.
        digest: SHA-256 of its pixels and size.
        brightness, contrast: mean and standard deviation in gray, 0..255.
        colour: mean difference between a pixel's strongest and weakest channel, 0..255.
        channels: the mean of each channel, 0..255, red first.
        thumbnail: uint8 (64, 64), gray.
    """

    width: int
    height: int
    digest: str
    brightness: float
    contrast: float
    colour: float
    channels: tuple[float, float, float]
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class Mask:
    """A mask.

    Attributes:
        width, height: in pixels.
        doubt: why it is not a mask of 0 and 255, empty if it is one.
        area: share of the image, 0..1.
        pieces: connected components (8 neighbours).
        loose: share of the mask that lies outside its largest piece, 0..1.
        border: share of the image's outermost pixels that the mask covers, 0..1.
        thumbnail: bool (64, 64).
    """

    width: int
    height: int
    doubt: str
    area: float
    pieces: int
    loose: float
    border: float
    thumbnail: NDArray[np.bool_]


@dataclass(frozen=True)
class PairFacts:
    """The measurements of a photograph and its mask.

    A file that could not be read is None, and `errors` says why. `damage` is a decoder's complaint
    about a photograph that it could decode.
    """

    dataset: str
    split: str
    id: str
    photo: Photo | None
    mask: Mask | None
    errors: tuple[str, ...]
    damage: str = ""


@dataclass(frozen=True)
class MeasuredDataset:
    """A dataset: its manifest, the facts of every pair of the split, and files of no such pair."""

    dataset: str
    manifest: dict[str, Any]
    facts: list[PairFacts]
    strays: list[str]


def measure(dataset: str, raw: Path) -> MeasuredDataset:
    """Measure every pair of data/raw/<dataset>, as the download stage left it.

    Raises:
        InputError: there is no such folder, or its manifest is broken. A mistake in a pair raises
            no error; it is one of its facts.
    """
    path = raw / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        listed = [(split, key) for split in SUBSETS for key in manifest[split]]
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the download stage first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a manifest ({error}); run the download stage again"
        ) from None
    facts = in_threads(
        lambda item: measure_pair(dataset, raw, item[0], item[1]), listed, f"checking {dataset}"
    )
    photos = {image_path(raw, key): key for _, key in listed}
    said = complaints([path for path in photos if path.suffix == ".jpg"])
    damage = {photos[path]: text for path, text in said.items()}
    facts = [replace(one, damage=damage.get(one.id, "")) for one in facts]
    ids = {key for _, key in listed}
    files = sorted(p for name in ("images", "masks") for p in (raw / name).glob("*"))
    strays = [p.relative_to(raw).as_posix() for p in files if p.stem not in ids]
    return MeasuredDataset(dataset, manifest, facts, strays)


def measure_pair(dataset: str, raw: Path, split: str, key: str) -> PairFacts:
    """Measure one photograph and its mask."""
    photo, mask, errors = None, None, []
    try:
        photo = measure_photo(read_rgb(image_path(raw, key))[0])
    except (InputError, OSError) as error:
        errors.append(_reason(error))
    try:
        mask = measure_mask(raw / "masks" / f"{key}.png")
    except (InputError, OSError) as error:
        errors.append(_reason(error))
    return PairFacts(dataset, split, key, photo, mask, tuple(errors))


def image_path(raw: Path, key: str) -> Path:
    """A photograph's path: a PNG if it was one or had to be rewritten, otherwise a JPEG."""
    png = raw / "images" / f"{key}.png"
    return png if png.exists() else raw / "images" / f"{key}.jpg"


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        path = Path(error.filename)
        return f"{path.parent.name}/{path.name}: missing"
    return str(error)


def measure_photo(image: NDArray[np.uint8]) -> Photo:
    """Measure a photograph, uint8 RGB (height, width, 3)."""
    height, width = image.shape[:2]
    digest = hashlib.sha256(f"{height} {width} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    scale = min(1, MEASURED / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.split(small)
    colour = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    return Photo(
        width,
        height,
        digest.hexdigest(),
        brightness=float(gray.mean()),
        contrast=float(gray.std()),
        colour=float(colour.mean()),
        channels=(float(red.mean()), float(green.mean()), float(blue.mean())),
        thumbnail=thumbnail(image),
    )


def measure_mask(path: Path) -> Mask:
    """Measure a mask's file; if it has other values than 0 and 255, half its maximum divides them.

    Raises:
        InputError: the file cannot be read.
    """
    doubt = ""
    try:
        pixels, _ = read_mask(path)
    except InputError as error:
        doubt = str(error)
        pixels = decode(path)  # type: ignore[assignment]
        pixels = pixels[..., :3].max(axis=2) if pixels.ndim == 3 else pixels
    lesion = (pixels > pixels.max() / 2).astype(np.uint8)
    height, width = lesion.shape
    _, _, stats, _ = cv2.connectedComponentsWithStats(lesion, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
    total = int(areas.sum())
    edges = (lesion[0], lesion[-1], lesion[1:-1, 0], lesion[1:-1, -1])
    share = cv2.resize(lesion * np.float32(1), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return Mask(
        width,
        height,
        doubt,
        area=total / lesion.size,
        pieces=len(areas),
        loose=1 - int(areas.max()) / total if total else 0.0,
        border=float(np.concatenate(edges).mean()),
        thumbnail=share >= 0.5,
    )
