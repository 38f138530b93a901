"""Segment images with trained weights: one array (`segment`) or files on disk (`segment_folder`).

An image goes through what the training images went through: min-max over all its channels to
0..255, then squashed to the square training size (vmunet.data.resize). Probabilities come back to
the image's own size, bilinearly, and are thresholded there.

The pixel grid is the file's as stored: an EXIF orientation tag is ignored, so that a mask's pixel
(row, column) is the image file's pixel (row, column), whatever a viewer does with the tag.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vmunet.classes import LESION, channels_of, classes_of
from vmunet.data.images import read_rgb
from vmunet.data.resize import min_max, resize_image
from vmunet.errors import InputError
from vmunet.inference.files import (
    Prediction,
    draw_overlay,
    find_images,
    refuse_failures,
    summary,
    write_image,
    write_table,
)
from vmunet.model import SIZE_MULTIPLE, VMUNet
from vmunet.protocols import PROTOCOLS
from vmunet.weights.checkpoints import load_checkpoint

if TYPE_CHECKING:
    from vmunet.inference.classes import ClassPrediction

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


class Member(NamedTuple):
    """A trained model of an ensemble, with the size (px), resizing and classes of its training."""

    model: VMUNet
    size: int
    resize: Literal["bilinear", "area"]
    classes: tuple[str, ...] = LESION


class Segmented(NamedTuple):
    """What `segment_folder` did: a prediction an image, and the files it left out by name."""

    predictions: "list[Prediction] | list[ClassPrediction]"
    skipped: list[Path]


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
        image: uint8 (height, width, 3), RGB, 0..255, any height and width.
        size: side of the square the models see, px, at least 32. Where it is not a multiple of
            32 the square is padded by reflection on the right and at the bottom.
        resize: how the training images were shrunk (`Protocol.resize`).
        tta: average over the image, its two mirror images and both mirrorings.

    Returns:
        float32 (height, width), 0..1, the image's own size.

    Raises:
        InputError: on another image layout, a size below 32, a model with several classes, or
            weights that give no finite number.
    """
    import cv2

    if not models:
        raise InputError("models: expected one or more, got none")
    batch, flips = prepare(image, size, resize, tta)
    mean = torch.stack([_mean_probability(model, batch, size, flips) for model in models]).mean(0)
    if not torch.isfinite(mean).all():
        raise InputError("the weights give NaN or infinite values: they cannot be used")
    height, width = image.shape[:2]
    full = cv2.resize(mean.numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
    return full.clip(0, 1)


def prepare(
    image: np.ndarray, size: int, resize: Literal["bilinear", "area"], tta: bool
) -> tuple[torch.Tensor, tuple[tuple[int, ...], ...]]:
    """What a model sees of an image, (copies, 3, padded size, padded size), and each one's flips.

    See `segment`, also for the errors.
    """
    _check_image(image)
    _check_size(size)
    # whole numbers, as the training arrays store them
    square = np.rint(resize_image(min_max(image), size, resize))
    pixels = torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1), dtype=np.float32))
    flips = FLIPS if tta else FLIPS[:1]
    padding = -size % SIZE_MULTIPLE
    batch = torch.stack([torch.flip(pixels, flip) for flip in flips])  # (flips, 3, size, size)
    return F.pad(batch, (0, padding, 0, padding), mode="reflect"), flips


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"image: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
        )


def _check_size(size: int) -> None:
    if size < SIZE_MULTIPLE:
        raise InputError(f"size {size}: images are segmented at {SIZE_MULTIPLE} px or more")


def _mean_probability(
    model: nn.Module, batch: torch.Tensor, size: int, flips: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Mean over the flipped copies in `batch` (flips, 3, h, w), each turned back: (size, size)."""
    logits = run_model(model, batch)
    if logits.shape[1] != 1:
        raise InputError(f"the model has {logits.shape[1]} classes: expected 1, the lesion")
    planes = torch.sigmoid(logits[:, 0, :size, :size].float()).cpu()
    return torch.stack([torch.flip(p, f) for p, f in zip(planes, flips, strict=True)]).mean(0)


def run_model(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The logits of a batch, without dropout; the model stays in the mode that it was in."""
    training, device = model.training, next(model.parameters()).device
    try:
        with torch.inference_mode():
            return model.eval()(batch.to(device))
    finally:
        model.train(training)


def find_weights(path: Path) -> list[Path]:
    """The checkpoints that `path` names: a file, a run folder, or a folder of run folders.

    A folder with `weights.safetensors` is a run; one whose subfolders hold it, such as the seeds
    of a cell, stands for all of them. Raises InputError where there is none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path}: no such weights; give a checkpoint, a run folder or its parent")
    inside = path / "weights.safetensors"
    found = [inside] if inside.is_file() else sorted(path.glob("*/weights.safetensors"))
    if not found:
        raise InputError(
            f"{path}: no weights.safetensors in this folder or directly in its subfolders; give a "
            "checkpoint, the folder of a finished run, or a folder of such runs"
        )
    return found


def load_members(
    weights: Iterable[Path], device: str | None = None, size: int | None = None
) -> list[Member]:
    """Load every checkpoint that `weights` names (see `find_weights`) as one ensemble.

    Args:
        weights: files, run folders, or folders of run folders.
        device: `cpu`, `cuda` or `cuda:N`; by default CUDA where there is one.
        size: side of the square the models see, px; by default each one's training size.

    Raises:
        InputError: where one is missing, foreign, made for something else than RGB images, or for
            other classes than the first.
    """
    target = choose_device(device)
    if size is not None:
        _check_size(size)
    members: list[Member] = []
    for path in dict.fromkeys(file for given in weights for file in find_weights(Path(given))):
        model, metadata = load_checkpoint(path)
        classes = classes_of(metadata, path)
        trained_for = (
            model.config["in_channels"],
            model.config["num_classes"],
            metadata["normalisation"],
        )
        if trained_for != (expected := (3, channels_of(classes), "minmax")):
            what = (
                "RGB lesion model" if len(classes) == 1 else f"RGB model of {len(classes)} classes"
            )
            raise InputError(
                f"{path}: its channels, classes and input normalisation are {trained_for}; "
                f"expected {expected}, an {what}"
            )
        if members and classes != members[0].classes:
            raise InputError(
                f"{path}: its classes are {', '.join(classes)}, and those of the weights before it "
                f"{', '.join(members[0].classes)}; an ensemble needs the same, in the same order"
            )
        if metadata["protocol"] not in PROTOCOLS:
            raise InputError(
                f"{path}: trained under the unknown protocol '{metadata['protocol']}'; known: "
                f"{', '.join(PROTOCOLS)}"
            )
        resize = PROTOCOLS[metadata["protocol"]].resize
        members.append(Member(model.to(target), size or metadata["size"], resize, classes))
    return members


def choose_device(name: str | None) -> torch.device:
    """`cpu`, `cuda` or `cuda:N`, by default CUDA where there is one; InputError where it is not."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device '{name}': expected cpu, cuda or cuda:N")
    device, gpus = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise InputError(f"device '{name}': this machine has {gpus} usable GPUs; try cpu")
    return device


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
) -> Segmented:
    """Segment image files and write their masks into the folder `out`.

    Written for each image, at its own size, replacing what an earlier run left:
    `<stem>_mask.png` (0 or 255); with `probabilities` `<stem>_probability.png` (16 bits, the
    probability x 65535); with `overlay` `<stem>_overlay.jpg` (the mask's outline and a light fill
    over the image). Then `predictions.csv`, a row an image (`Prediction`). With weights of several
    classes the mask holds labels (0 the background, 1 the first class), there is a
    `<stem>_<class>_probability.png` for each class, the overlay has a legend beneath, and the
    table a row for each image and class.

    Args:
        weights: see `load_members`; the mean over all of them is thresholded.
        images: files and folders, see `find_images`.
        out: made where it does not exist; not the folder of the images, whose own masks may
            have the same names.
        threshold: a pixel is lesion where its probability is at least this, between 0 and 1; 0.5
            if None. Of several classes the likeliest is taken, and none may be given.
        tta, size, device: see `segment` and `load_members`.

    Raises:
        InputError: before anything is written where an argument is wrong; after the rest was
            segmented where single images could not be read, naming each.
    """
    from tqdm import tqdm

    out = Path(out)
    files, skipped = find_images(images)
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"threshold {threshold}: expected a number between 0 and 1")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file is in the place of the output folder")
    if any(file.parent.resolve() == out.resolve() for file in files):
        raise InputError(f"{out}: holds the images themselves; give another folder for the masks")
    members = load_members(weights, device, size)
    if len(members[0].classes) > 1:
        from vmunet.inference.classes import segment_class_files

        if threshold is not None:
            raise InputError(
                f"threshold {threshold}: does not apply to weights of several classes, where each "
                "pixel gets the likeliest; leave it out"
            )
        found = segment_class_files(
            members, files, out, tta=tta, probabilities=probabilities, overlay=overlay
        )
        return Segmented(found, skipped)
    threshold = 0.5 if threshold is None else threshold
    table = out / "predictions.csv"
    predictions: list[Prediction] = []
    failures: list[str] = []
    for file in tqdm(files, desc="segment", unit="image", disable=None):
        try:
            image, _ = read_rgb(file)
            planes = [segment([m.model], image, m.size, m.resize, tta) for m in members]
        except (InputError, OSError) as error:
            failures.append(str(error) if file.name in str(error) else f"{file.name}: {error}")
            continue
        plane = np.mean(planes, axis=0)
        mask = plane >= threshold
        outputs = {"mask.png": np.uint8(255) * mask}
        if probabilities:
            outputs["probability.png"] = np.rint(plane * 65535).astype(np.uint16)
        if overlay:
            outputs["overlay.jpg"] = draw_overlay(image, mask)
        if not predictions:
            # were this run interrupted, the table would be an earlier run's
            table.unlink(missing_ok=True)
        for name, pixels in outputs.items():
            write_image(out / f"{file.stem}_{name}", pixels)
        predictions.append(summary(file, plane, mask))
    if predictions:
        write_table(table, predictions)
    refuse_failures(failures, len(files), out if predictions else None)
    return Segmented(predictions, skipped)
