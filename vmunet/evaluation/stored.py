"""The predictions that an evaluation keeps beside its scores: figures and the page show them later.

predictions.npz holds plain arrays (nothing is ever unpickled). For images: `ids`, `size`, and the
predicted and true masks at the training size, eight pixels a byte: 650 images of 256 px take 5 MB
before compression. For volumes, and for images with several classes: an array of labels by name.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmunet.errors import InputError

Masks = npt.NDArray[np.bool_]
NAME = "predictions.npz"


@dataclass(frozen=True)
class StoredMasks:
    """Attributes:
    ids: one per image.
    masks, truth: bool (images, size, size); the truth resized to the nearest pixel.
    """

    ids: list[str]
    masks: Masks
    truth: Masks


def write_masks(path: Path, ids: Sequence[str], masks: Masks, truth: Masks) -> None:
    """Write masks, bool (images, size, size), with their truths."""
    np.savez_compressed(
        path,
        ids=np.array(ids, dtype=np.str_),
        size=np.int64(masks.shape[1]),
        masks=np.packbits(masks.reshape(len(masks), -1), axis=1),
        truth=np.packbits(truth.reshape(len(truth), -1), axis=1),
    )


def read_masks(path: Path) -> StoredMasks:
    """What `write_masks` wrote.

    Raises:
        InputError: the file is missing or not of that form.
    """
    stored = _read(path)
    try:
        ids, size = [str(name) for name in stored["ids"]], int(stored["size"])
        shape = (len(ids), size, size)
        masks, truth = (
            np.unpackbits(stored[name], axis=1, count=size * size).reshape(shape).astype(np.bool_)
            for name in ("masks", "truth")
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not the masks of a run on images ({error}); evaluate the run again"
        ) from None
    return StoredMasks(ids, masks, truth)


def write_labels(path: Path, labels: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Write arrays of labels by the name of their case or image."""
    # `file` is savez's own first argument: no case may have this name
    np.savez_compressed(path, **{f"labels:{name}": array for name, array in labels.items()})  # type: ignore[arg-type]


def read_labels(path: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """What `write_labels` wrote: uint8 (depth, height, width) by case.

    Raises:
        InputError: the file is missing or not of that form.
    """
    labels = {name: array for name, array in _read(path).items() if name.startswith("labels:")}
    if not labels:
        raise InputError(f"{path}: holds no labels; evaluate the run again")
    return {name.removeprefix("labels:"): array for name, array in labels.items()}


def _read(path: Path) -> dict[str, npt.NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no predictions there; evaluate the run again") from None
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: not readable ({error}); evaluate the run again") from None
