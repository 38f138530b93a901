"""Segment images with weights of several classes: labels instead of a mask.

What `vmunet.inference.images` says of images, sizes and ensembles holds here. Each class's
probability comes back to the image's own size, bilinearly, and the likeliest label is taken there.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from vmunet.classes import Floats, Labels, channels_of, likeliest, resized_planes
from vmunet.data.images import read_rgb
from vmunet.drawing.sheets.labels import overlay as draw_overlay
from vmunet.errors import InputError
from vmunet.files import whole_file
from vmunet.inference.files import refuse_failures, write_image
from vmunet.inference.images import Member, prepare, run_model


@dataclass(frozen=True)
class ClassPrediction:
    """What was found in an image: a row of predictions.csv for each class.

    Attributes:
        image: the file's name.
        width, height: its own size, px.
        fractions: each class's share of the image's pixels, 0..1.
        mean_probabilities: of each class inside its own region, 0..1; None where it has none.
    """

    image: str
    width: int
    height: int
    fractions: tuple[float, ...]
    mean_probabilities: tuple[float | None, ...]


def segment_classes(
    members: Sequence[Member], image: np.ndarray, tta: bool = False
) -> tuple[Labels, Floats]:
    """The label of each pixel and that label's probability.

    Args:
        members: models of the same classes, of `vmunet.inference.images.load_members`; their
            probabilities are averaged.
        image: uint8 (height, width, 3), RGB, 0..255, any height and width.
        tta: average over the image, its two mirror images and both mirrorings.

    Returns:
        uint8 labels, 0 the background, and float32 0..1, both (height, width).

    Raises:
        InputError: on another image layout, members of other classes or of one alone, or weights
            that give no finite number.
    """
    height, width = image.shape[:2]
    return likeliest(resized_planes(_squares(members, image, tta), height, width))


def _squares(members: Sequence[Member], image: np.ndarray, tta: bool) -> list[Floats]:
    """Of each member the probabilities (classes + 1, size, size) at its own size."""
    if len({m.classes for m in members}) != 1 or len(members[0].classes) == 1:
        raise InputError("members: expected models of the same classes, of several")
    channels = channels_of(members[0].classes)
    return [
        class_probabilities(m.model, image, m.size, m.resize, channels, tta).numpy()
        for m in members
    ]


def class_probabilities(
    model: nn.Module,
    image: np.ndarray,
    size: int,
    resize: Literal["bilinear", "area"],
    channels: int,
    tta: bool,
) -> torch.Tensor:
    """Probabilities (channels, size, size) of the squashed image; see `segment_classes`."""
    batch, flips = prepare(image, size, resize, tta)
    logits = run_model(model, batch)
    if logits.shape[1] != channels:
        raise InputError(
            f"the model has {logits.shape[1]} channels; expected {channels}, the background and "
            f"{channels - 1} classes"
        )
    planes = logits[..., :size, :size].float().softmax(1).cpu()  # (flips, channels, size, size)
    mean = torch.stack([torch.flip(p, f) for p, f in zip(planes, flips, strict=True)]).mean(0)
    if not torch.isfinite(mean).all():
        raise InputError("the weights give NaN or infinite values: they cannot be used")
    return mean


def segment_class_files(
    members: Sequence[Member],
    files: Sequence[Path],
    out: Path,
    *,
    tta: bool,
    probabilities: bool,
    overlay: bool,
) -> list[ClassPrediction]:
    """Write the labels of image files into `out`, as `vmunet.inference.images.segment_folder` says.

    Raises:
        InputError: before anything is written where two files would have the same name; after the
            rest was segmented where single images could not be read, naming each.
    """
    from tqdm import tqdm

    classes = members[0].classes
    if probabilities:
        names = Counter(f"{file.stem}_{name}" for file in files for name in classes)
        if twice := [name for name, n in names.items() if n > 1]:
            raise InputError(
                f"two of the images and classes would write {twice[0]}_probability.png; segment "
                "them into different folders"
            )
    table = out / "predictions.csv"
    predictions: list[ClassPrediction] = []
    failures: list[str] = []
    for file in tqdm(files, desc="segment", unit="image", disable=None):
        try:
            image, _ = read_rgb(file)
            squares = _squares(members, image, tta)
        except (InputError, OSError) as error:
            failures.append(str(error) if file.name in str(error) else f"{file.name}: {error}")
            continue
        if not predictions:
            # were this run interrupted, the table would be an earlier run's
            table.unlink(missing_ok=True)
        height, width = image.shape[:2]
        planes = resized_planes(squares, height, width)
        if probabilities:
            planes = _written(planes, [out / f"{file.stem}_{name}" for name in classes])
        labels, best = likeliest(planes)
        if overlay:
            write_image(out / f"{file.stem}_overlay.jpg", draw_overlay(image, labels, classes))
        write_image(out / f"{file.stem}_mask.png", labels)
        predictions.append(summary(file, labels, best, len(classes)))
    if predictions:
        write_class_table(table, predictions, classes)
    refuse_failures(failures, len(files), out if predictions else None)
    return predictions


def _written(planes: Iterator[Floats], places: Sequence[Path]) -> Iterator[Floats]:
    """Pass the planes on, and write each but the background's: all at once may be gigabytes."""
    yield next(planes)
    for plane, place in zip(planes, places, strict=True):
        pixels = np.rint(plane.clip(0, 1) * 65535).astype(np.uint16)
        write_image(place.with_name(f"{place.name}_probability.png"), pixels)
        yield plane


def summary(file: Path, labels: Labels, best: Floats, classes: int) -> ClassPrediction:
    """The shares of an image file's labels and their probabilities, both (height, width)."""
    height, width = labels.shape
    pixels = np.bincount(labels.ravel(), minlength=classes + 1)
    totals = np.bincount(labels.ravel(), weights=best.ravel(), minlength=classes + 1)
    return ClassPrediction(
        file.name,
        width,
        height,
        tuple(float(n) / labels.size for n in pixels[1:]),
        tuple(
            float(total / n) if n else None for total, n in zip(totals[1:], pixels[1:], strict=True)
        ),
    )


def write_class_table(
    path: Path, predictions: Sequence[ClassPrediction], classes: Sequence[str]
) -> None:
    """Write predictions.csv, a row for each image and class: six decimals, empty without pixels."""
    with whole_file(path) as part, open(part, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "width", "height", "class", "fraction", "mean_probability"])
        for row in predictions:
            for name, fraction, inside in zip(
                classes, row.fractions, row.mean_probabilities, strict=True
            ):
                mean = "" if inside is None else f"{inside:.6f}"
                writer.writerow([row.image, row.width, row.height, name, f"{fraction:.6f}", mean])
