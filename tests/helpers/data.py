"""Small archives and files that the data tests feed in, good and bad."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np

from vmunet.data.isic.official import ISIC17

TRAINING_IMAGES, TRAINING_MASKS, VALIDATION_IMAGES, VALIDATION_MASKS = ISIC17.archives


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """The file content of an image (BGR where it has colours)."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def photograph(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Random uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def blob(height: int = 24, width: int = 32) -> np.ndarray:
    """A mask uint8 (height, width) with a rectangle of 255."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return mask


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """A zip of the given members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def official_members(training: int = 4, validation: int = 2) -> dict[str, dict[str, bytes]]:
    """Members of ISIC 2017's four archives, by archive name; tests spoil some of them."""
    members: dict[str, dict[str, bytes]] = {archive.name: {} for archive in ISIC17.archives}
    for index in range(training + validation):
        images, masks = ISIC17.archives[:2] if index < training else ISIC17.archives[2:]
        key = f"ISIC_{index:07d}"
        members[images.name][f"{images.folder}/{key}.jpg"] = encoded(photograph(seed=index), ".jpg")
        members[masks.name][f"{masks.folder}/{key}_segmentation.png"] = encoded(blob())
    return members


def write_mirror(folder: Path, members: dict[str, dict[str, bytes]]) -> Path:
    """A mirror holding ISIC 2017's archives with these members; returns the mirror's folder."""
    for name, files in members.items():
        write_zip(folder / "isic17" / name, files)
    return folder


def picture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A photograph, uint8 (height, width, 3), with coarse and fine structure of its own."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for cells, strength in ((5, 40), (16, 16), (40, 8)):
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
        image += strength * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_raw_folder(
    folder: Path, train: dict[str, np.ndarray], test: dict[str, np.ndarray]
) -> Path:
    """data/raw/<dataset> with these photographs (BGR, by id) as PNG, each with a blob as mask."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for key, image in (train | test).items():
        (folder / "images" / f"{key}.png").write_bytes(encoded(image))
        (folder / "masks" / f"{key}.png").write_bytes(encoded(blob(*image.shape[:2])))
    manifest = {"source": "made", "train": sorted(train), "test": sorted(test)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
