"""Segment images with trained weights: one array (`segment`) or files on disk (`segment_folder`).

`vmunet.inference.ensemble` describes what a model sees of an image. Probabilities are resized
bilinearly to the image's own size and thresholded there.

The pixel grid is the file's as stored: an orientation tag (Exif, TIFF) is not applied, so that a
mask's pixel (row, column) is the image file's pixel (row, column), whatever a viewer does with it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from vmunet.data.orientation import orientation_of
from vmunet.errors import InputError
from vmunet.inference.classes import segment_class_files
from vmunet.inference.ensemble import Member, load_members, probabilities
from vmunet.inference.files import (
    IMAGES,
    check_out,
    draw_overlay,
    find_inputs,
    read_photo,
    segment_each,
    write_image,
)
from vmunet.inference.tables import ClassPrediction, Prediction


class SegmentedImages(NamedTuple):
    """The result of `segment_folder`.

    predictions: one for each image.
    skipped: the files left out.
    turned: the images with an orientation tag, which viewers show turned and their masks not.
    """

    predictions: list[Prediction] | list[ClassPrediction]
    skipped: list[Path]
    turned: list[Path]


def segment(
    models: Sequence[nn.Module],
    image: np.ndarray,
    size: int,
    resize: Literal["bilinear", "area"],
    tta: bool = False,
) -> np.ndarray:
    """The probability that each pixel belongs to the lesion.

    Args:
        models: VMUNets with one class, trained at `size`; their probabilities are averaged.
        image, size, resize, tta: see `vmunet.inference.ensemble.probabilities`.

    Returns:
        float32 (height, width), 0..1, the image's own size.

    Raises:
        InputError: another image layout, a size below 32, a model with several classes, or
            weights that give NaN or infinite values.
    """
    import cv2

    if not models:
        raise InputError("models: expected one or more, got none")
    squares = [probabilities(model, image, size, resize, 1, tta)[0] for model in models]
    mean = torch.stack(squares).mean(0)
    height, width = image.shape[:2]
    full = cv2.resize(mean.numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    return full.clip(0, 1)


def segment_members(members: Sequence[Member], image: np.ndarray, tta: bool = False) -> np.ndarray:
    """`segment` for members of different sizes: each at its own size, then the mean."""
    return np.mean([segment([m.model], image, m.size, m.resize, tta) for m in members], axis=0)


def segment_folder(
    weights: Iterable[Path],
    images: Sequence[Path],
    out: Path,
    *,
    threshold: float | None = None,
    tta: bool = False,
    size: int | None = None,
    device: str | None = None,
    probabilities: bool = False,
    overlay: bool = False,
) -> SegmentedImages:
    """Segment image files and write their masks into the folder `out`.

    Written for each image, at its own size, replacing what an earlier run left:
    `<stem>_mask.png` (0 or 255); with `probabilities` `<stem>_probability.png` (16 bits, the
    probability x 65535); with `overlay` `<stem>_overlay.jpg` (the mask's outline and a light fill
    over the image). Then `predictions.csv`, a row for each image (`Prediction`). With weights of
    several classes the mask holds labels (0 the background, 1 the first class), there is a
    `<stem>_<class>_probability.png` for each class, the overlay has a legend below it, and the
    table a row for each image and class.

    Args:
        weights: see `load_members`; the mean over all of them is thresholded.
        images: files and folders, see `find_inputs`.
        out: the folder is made if it does not exist; it cannot be the folder of the images, whose
            own masks may have the same names.
        threshold: a pixel is lesion if its probability is at least this, between 0 and 1; 0.5 if
            None. With several classes the likeliest is taken, and no threshold may be given.
        tta, size, device: see `segment` and `load_members`.

    Raises:
        InputError: before anything is written if an argument is wrong; after the rest was
            segmented if single images could not be read, naming each.
    """
    out = Path(out)
    files, skipped = find_inputs(images, IMAGES)
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"threshold {threshold}: expected a number between 0 and 1")
    check_out(out, files, IMAGES)
    members = load_members(weights, device, size)
    if len(members[0].classes) > 1:
        if threshold is not None:
            raise InputError(
                f"threshold {threshold}: does not apply to weights of several classes, because "
                "each pixel gets the likeliest; leave it out"
            )
        rows = segment_class_files(
            members, files, out, tta=tta, probabilities=probabilities, overlay=overlay
        )
        return SegmentedImages(rows, skipped, _turned(files))
    level = 0.5 if threshold is None else threshold

    def one(file: Path) -> tuple[np.ndarray, np.ndarray]:
        image = read_photo(file)
        return image, segment_members(members, image, tta)

    def write(file: Path, segmented: tuple[np.ndarray, np.ndarray]) -> list[Prediction]:
        image, plane = segmented
        mask = plane >= level
        outputs = {"mask.png": np.uint8(255) * mask}
        if probabilities:
            outputs["probability.png"] = np.rint(plane * 65535).astype(np.uint16)
        if overlay:
            outputs["overlay.jpg"] = draw_overlay(image, mask)
        for name, pixels in outputs.items():
            write_image(out / f"{file.stem}_{name}", pixels)
        return [Prediction.of(file, plane, mask)]

    predictions = segment_each(files, out, IMAGES, one, write)
    return SegmentedImages(predictions, skipped, _turned(files))


def _turned(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if orientation_of(file) != 1]
