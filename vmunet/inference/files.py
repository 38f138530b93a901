"""The files around a segmentation: which are images, and how masks and the table are written."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vmunet.errors import InputError
from vmunet.files import whole_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
NOT_IMAGES = ("_superpixels", "_segmentation", "_mask", "_probability", "_overlay")
OVERLAY_COLOUR = (86, 180, 233)  # sky blue of Okabe and Ito's colour-blind safe palette
OVERLAY_OPACITY = 0.15


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.csv.

    Attributes:
        image: the file's name.
        width, height: its own size, px.
        lesion_fraction: the mask's share of the image's pixels, 0..1.
        mean_probability: mean probability inside the mask, 0..1; None where the mask is empty.
    """

    image: str
    width: int
    height: int
    lesion_fraction: float
    mean_probability: float | None


def find_images(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The image files that `paths` name, and the files left out.

    A folder gives its own files, sorted, not those of its subfolders. Left out are files whose
    names mark them as masks, superpixels or what `segment_folder` wrote, so that a second run
    over the same folder sees the same images.

    Raises:
        InputError: where a path is missing, is no image by its suffix, nothing is left, or two
            images share a stem, as both would write the same mask.
    """
    given: dict[Path, Path] = {}  # by folder and name: a file named twice counts once
    for path in map(Path, paths):
        if path.is_dir():
            files = [f for f in sorted(path.iterdir()) if is_image(f) and f.is_file()]
        elif not path.is_file():
            raise InputError(f"{path}: no such image or folder")
        elif not is_image(path):
            raise InputError(f"{path}: not an image; expected one of {', '.join(SUFFIXES)}")
        else:
            files = [path]
        given.update((file.parent.resolve() / file.name, file) for file in files)
    images = [file for file in given.values() if not _named_otherwise(file)]
    skipped = [file for file in given.values() if _named_otherwise(file)]
    if not images:
        left_out = f" ({len(skipped)} left out as masks or overlays)" if skipped else ""
        where = ", ".join(str(path) for path in paths)
        raise InputError(f"{where}: no images{left_out}; expected {', '.join(SUFFIXES)} files")
    stems: dict[str, Path] = {}
    for image in images:
        if (other := stems.setdefault(image.stem, image)) is not image:
            raise InputError(
                f"{other} and {image} would both write {image.stem}_mask.png; rename one, or "
                "segment them into different folders"
            )
    return images, skipped


def is_image(path: Path) -> bool:
    """Whether a path is an image by its name; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _named_otherwise(path: Path) -> bool:
    return path.stem.lower().endswith(NOT_IMAGES)


def draw_overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask's outline and a light fill over the image.

    Args:
        image: uint8 (height, width, 3), RGB.
        mask: bool (height, width).

    Returns:
        uint8 (height, width, 3), RGB; the image itself where the mask is empty. The outline is
        sky blue on black, which stays visible on light and dark skin and to the colour-blind.
    """
    import cv2

    drawn = image.copy()
    tint = np.array(OVERLAY_COLOUR, dtype=np.float32)
    drawn[mask] = np.rint(drawn[mask] + OVERLAY_OPACITY * (tint - drawn[mask]))
    # both the outer border and that of holes
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(mask.shape) / 400))
    rim = max(1, width // 2)
    cv2.drawContours(drawn, outlines, -1, (0, 0, 0), width + 2 * rim)
    cv2.drawContours(drawn, outlines, -1, OVERLAY_COLOUR, width)
    return drawn


def summary(file: Path, probability: np.ndarray, mask: np.ndarray) -> Prediction:
    """The table's row for an image file: probability (height, width), mask bool of that shape."""
    height, width = mask.shape
    inside = float(probability[mask].mean(dtype=np.float64)) if mask.any() else None
    return Prediction(file.name, width, height, float(mask.mean()), inside)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a plane, or RGB, in the format that the suffix names."""
    import cv2

    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV wants BGR
    _, content = cv2.imencode(path.suffix, ordered)
    with whole_file(path) as part:
        part.write_bytes(content.tobytes())


def refuse_failures(failures: Sequence[str], images: int, out: Path | None) -> None:
    """Raise InputError naming the images that failed, if any, of so many; `out` has the others."""
    if failures:
        listing = f" {failures[0]}" if len(failures) == 1 else "\n  ".join(["", *failures])
        others = f", the others are in {out}" if out else ""
        raise InputError(
            f"{len(failures)} of {images} images could not be segmented{others}:{listing}"
        )


def write_table(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions.csv: fractions with six decimals, empty where a mask is empty."""
    with whole_file(path) as part, open(part, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Prediction))
        for row in predictions:
            inside = "" if row.mean_probability is None else f"{row.mean_probability:.6f}"
            lesion = f"{row.lesion_fraction:.6f}"
            writer.writerow([row.image, row.width, row.height, lesion, inside])
