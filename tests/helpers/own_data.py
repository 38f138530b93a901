"""Small datasets of one's own as the tests write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.helpers.data import blob, encoded, photograph


def write_folders(
    root: Path, names: Sequence[str], masks: Mapping[str, np.ndarray] | None = None
) -> Path:
    """root/images/<name>.png and root/masks/<name>.png; a mask is a blob unless it is given."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        mask = (masks or {}).get(name, blob())
        (root / "images" / f"{name}.png").write_bytes(encoded(photograph(seed=seed)))
        (root / "masks" / f"{name}.png").write_bytes(encoded(mask))
    return root


def touch(folder: Path, *names: str) -> Path:
    """Empty files of these names: what is told from names alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def classes_mask(height: int = 24, width: int = 32) -> np.ndarray:
    """A mask with the class numbers 0, 1 and 3 in upright stripes."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 3 :] = 1
    mask[:, 2 * width // 3 :] = 3
    return mask


def decoded(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
