"""Reading published ImageNet weights: tensors only, with the names that they were published with.

A `.npz` is what Google's vision transformers were published in. What a `.pth` may hold is said at
`vmunet.weights.checkpoints.read_tensors`.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vmunet.data.bounded import check_npz
from vmunet.errors import InputError
from vmunet.weights.checkpoints import TAKEN, listed, read_tensors
from vmunet.weights.imagenet.files import FILES


def read_published(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a `.npz`, `.pth` or `.safetensors` file, and the key that they lay under.

    The key is '' if the file itself is the state dict.

    Raises:
        InputError: the file is missing, broken, or holds more than tensors.
    """
    if path.suffix == ".npz":
        return _arrays(path), ""
    tensors, header = read_tensors(path)
    return tensors, header.get(TAKEN, "")


def _arrays(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the .npz of a vision transformer")
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
        raise InputError(
            f"{path}: damaged, cut short or no .npz; copy or download it again"
        ) from None
    except (ValueError, TypeError, AttributeError):  # objects, a type torch lacks, or no archive
        raise InputError(
            f"{path}: not loaded, because it is not an .npz of numbers alone; objects in it may "
            "run code"
        ) from None


def recognise(tensors: dict[str, Tensor]) -> str | None:
    """The name in `FILES` of what these tensors are; None if they are none of them."""
    for name, published in FILES.items():
        found = {key: tuple(tensors[key].shape) for key in published.shapes if key in tensors}
        if found == dict(published.shapes) and published.lacks not in tensors:
            return name
    return None


def check_is(name: str, tensors: dict[str, Tensor], path: Path) -> None:
    """Raise InputError unless the tensors are those of the published file `name`."""
    found = recognise(tensors)
    if found == name:
        return
    wanted = FILES[name]
    key, shape = next(iter(wanted.shapes.items()))
    has = FILES[found].file if found else f"another network's, whose tensors are {listed(tensors)}"
    raise InputError(
        f"{path}: not {wanted.file}, which holds {key} of {shape} and no {wanted.lacks}, but {has}"
    )
