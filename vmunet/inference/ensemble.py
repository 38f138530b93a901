"""Trained models for images: find, load and average them, and run them on one image.

An image is prepared like the training images: min-max over all its channels to 0..255, then
resized to the square training size (vmunet.data.resize).
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vmunet.architecture import Model
from vmunet.classes import LESION, channels_of, classes_of
from vmunet.data.resize import min_max, resize_image
from vmunet.errors import InputError
from vmunet.protocols import PROTOCOLS
from vmunet.weights.checkpoints import load_checkpoint

SMALLEST = 32  # side of the square that a model sees, px
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
# A run's weights, and those of a folder that `vmunet publish` wrote.
NAMES = ("weights.safetensors", "model.safetensors")


class Member(NamedTuple):
    """A trained model of an ensemble, with the size (px), resizing and classes of its training."""

    model: Model
    size: int
    resize: Literal["bilinear", "area"]
    classes: tuple[str, ...] = LESION


def find_weights(path: Path) -> list[Path]:
    """The checkpoints that `path` names: a file, a run folder, or a folder of run folders.

    A folder with `weights.safetensors` is a run, and one with `model.safetensors` a published
    model; a folder whose subfolders hold runs, such as the seeds of a cell, stands for all of them.
    Raises InputError if there are no weights.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path}: no such weights; give a checkpoint, a run folder or its parent")
    inside = [path / name for name in NAMES if (path / name).is_file()]
    files = inside[:1] or sorted(path.glob("*/weights.safetensors"))
    if not files:
        raise InputError(
            f"{path}: no weights.safetensors in this folder or directly in its subfolders; give a "
            "checkpoint, the folder of a finished run, or a folder of such runs"
        )
    return files


def find_all_weights(weights: Iterable[Path]) -> list[Path]:
    """What `find_weights` finds for each path, every file once."""
    files = (file for path in weights for file in find_weights(Path(path)))
    return list(dict.fromkeys(files))


def load_members(
    weights: Iterable[Path], device: str | None = None, size: int | None = None
) -> list[Member]:
    """Load every checkpoint that `weights` names (see `find_weights`) as one ensemble.

    Args:
        weights: files, run folders, or folders of run folders.
        device: `cpu`, `cuda` or `cuda:N`; by default CUDA if there is a GPU.
        size: side of the square the models see, px; by default each one's training size.

    Raises:
        InputError: a checkpoint is missing, foreign, not for RGB images, or for other classes
            than the first.
    """
    target = choose_device(device)
    if size is not None:
        check_size(size)
    members: list[Member] = []
    for path in find_all_weights(weights):
        model, metadata = load_checkpoint(path)
        classes = classes_of(metadata, path)
        outputs = model.config["num_classes"]
        if outputs != channels_of(classes):
            raise InputError(
                f"{path}: another number of classes: its output has {outputs} channels, and "
                f"{channels_of(classes)} are expected for {', '.join(classes)}; of files without "
                "this project's header, only those of 1 class (ISIC) and of 9 (Synapse) are known"
            )
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
    """The device `cpu`, `cuda` or `cuda:N`, by default CUDA if there is a GPU.

    Raises InputError if the machine does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device '{name}': expected cpu, cuda or cuda:N")
    device, gpus = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise InputError(f"device '{name}': this machine has {gpus} usable GPUs; try cpu")
    return device


def probabilities(
    model: nn.Module,
    image: np.ndarray,
    size: int,
    resize: Literal["bilinear", "area"],
    channels: int,
    tta: bool = False,
) -> torch.Tensor:
    """A model's probabilities for an image: `batch_probabilities` of it alone.

    Returns:
        float32 (channels, size, size), 0..1: the probability of a lesion, or of each label.
    """
    return batch_probabilities(model, [image], size, resize, channels, tta)[0]


def batch_probabilities(
    model: nn.Module,
    images: Sequence[np.ndarray],
    size: int,
    resize: Literal["bilinear", "area"],
    channels: int,
    tta: bool = False,
) -> torch.Tensor:
    """A model's probabilities for images, at the square size that the model sees.

    Args:
        model: stays in the mode that it was in, and is used without dropout; it sees all images at
            once.
        images: uint8 (height, width, 3), RGB, 0..255, any heights and widths; one or more.
        size: side of the square, px, at least 32. If it is not a multiple of the model's stride,
            the square is padded by reflection on the right and at the bottom.
        resize: how the training images were resized (`Protocol.resize`).
        channels: 1 for a lesion, else the background and each class.
        tta: average over each image, its two mirror images and both mirrorings.

    Returns:
        float32 (images, channels, size, size), 0..1: the probability of a lesion, or of each label.

    Raises:
        InputError: another image layout, a size below 32, a model with another number of
            channels, or weights that give NaN or infinite values.
    """
    for image in images:
        check_image(image)
    check_size(size)
    pixels = torch.stack([_square(image, size, resize) for image in images])
    flips = FLIPS if tta else FLIPS[:1]
    padding = -size % getattr(model, "stride", SMALLEST)
    batch = torch.cat([torch.flip(pixels, flip) for flip in flips])  # flip by flip
    batch = F.pad(batch, (0, padding, 0, padding), mode="reflect")
    logits = run_model(model, batch)
    if logits.shape[1] != channels:
        expected = (
            "1, the lesion"
            if channels == 1
            else f"{channels}, the background and {channels - 1} classes"
        )
        raise InputError(f"the model has {logits.shape[1]} channels; expected {expected}")
    cropped = logits[..., :size, :size].float()
    planes = (torch.sigmoid(cropped) if channels == 1 else cropped.softmax(1)).cpu()
    turned = planes.split(len(images))  # (images, channels, size, size) of each flip
    mean = torch.stack([torch.flip(p, f) for p, f in zip(turned, flips, strict=True)]).mean(0)
    if not torch.isfinite(mean).all():
        raise InputError("the weights give NaN or infinite values: they cannot be used")
    return mean


def check_image(image: np.ndarray, name: str = "image") -> None:
    """Raise InputError if an array is no image: uint8 (height, width, 3), not empty."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"{name}: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
        )


def _square(image: np.ndarray, size: int, resize: Literal["bilinear", "area"]) -> torch.Tensor:
    """What a model sees of an image: float32 (3, size, size)."""
    # whole numbers, as the training arrays store them
    square = np.rint(resize_image(min_max(image), size, resize))
    return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1), dtype=np.float32))


def check_size(size: int) -> None:
    """Raise InputError if images cannot be segmented at this size, px."""
    if size < SMALLEST:
        raise InputError(f"size {size}: images are segmented at {SMALLEST} px or more")


def run_model(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The logits of a batch, without dropout; the model stays in the mode that it was in."""
    training, device = model.training, next(model.parameters()).device
    try:
        with torch.inference_mode():
            return model.eval()(batch.to(device))
    finally:
        model.train(training)
