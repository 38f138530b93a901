"""Images of several classes: shapes that a small model tells apart by their colour."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np

from vmunet.data.resize import min_max, resize_image, resize_mask

NAMES = ("disc", "box", "bar")
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 220))  # RGB, of label 1, 2, 3


def scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph uint8 (height, width, 3), RGB, and its labels 0..3; one shape may be missing."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    x, y = (rng.uniform(0.25, 0.75, 2) * (width, height)).astype(int).tolist()
    reach = min(height, width) // 5
    cv2.rectangle(labels, (x - reach, y), (x + reach, y + reach), 2, cv2.FILLED)
    cv2.circle(labels, (x, y), reach, 1, cv2.FILLED)  # touches the box
    if seed % 3:
        row = int(rng.uniform(0.05, 0.2) * height)
        labels[row : row + max(3, height // 8), width // 8 : width // 2] = 3
    image = rng.integers(90, 130, (height, width, 3)).astype(np.int16)
    for label, colour in enumerate(COLOURS, start=1):
        image[labels == label] += (np.array(colour, np.int16) - 110) * 3 // 4
    return image.clip(0, 255).astype(np.uint8), labels


def write_class_arrays(
    folder: Path,
    size: int,
    train: list[tuple[np.ndarray, np.ndarray]],
    test: list[tuple[np.ndarray, np.ndarray]],
    classes: tuple[str, ...] = NAMES,
    **facts: object,
) -> Path:
    """data/arrays/<view>/<protocol> of (image, labels) pairs, each at its own size."""
    for subset, pairs in (("train", train), ("test", test)):
        place = folder / subset
        place.mkdir(parents=True)
        images = [np.rint(resize_image(min_max(image), size, "area")) for image, _ in pairs]
        np.save(place / "images.npy", np.array(images, np.uint8))
        np.save(place / "masks.npy", np.array([resize_mask(m, size, "nearest") for _, m in pairs]))
        (place / "ids.txt").write_text("".join(f"{subset}{i}\n" for i in range(len(pairs))))
    write_native(folder, [labels for _, labels in test])
    manifest = {
        "dataset": "shapes", "view": f"shapes-{size}", "size": size, "protocol": "paper",
        "source": "own", "n_train": len(train), "n_test": len(test), "native_min": [40, 40],
        "native_max": [90, 90], "classes": list(classes), **facts,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_native(folder: Path, masks: list[np.ndarray]) -> None:
    """Write the zip of native masks; a mask may be any array that a PNG can hold."""
    with zipfile.ZipFile(folder / "test" / "native_masks.zip", "w") as archive:
        for i, mask in enumerate(masks):
            archive.writestr(f"test{i}.png", cv2.imencode(".png", mask)[1].tobytes())
