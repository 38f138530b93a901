"""What a person gives to a `Predictor`, as an array: a file, a picture of Pillow's, an array."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmunet.data.image_size import check_pixels
from vmunet.data.images import SUFFIXES, is_image
from vmunet.data.nifti import is_nifti, read_volume
from vmunet.errors import InputError
from vmunet.inference.ensemble import check_image
from vmunet.inference.files import read_photo, wrong_kind

# A path, an array or a PIL.Image.Image. Pillow is not one of the library's packages.
Input: TypeAlias = "Path | str | NDArray[Any] | Any"
MODEL = "this model"
LOSSLESS = ("RGB", "L", "P")  # modes of Pillow's that become RGB without a guess
COLOURS = (3, 4)  # channels


class Loaded(NamedTuple):
    """An image or a volume in memory.

    array: of an image uint8 (height, width, 3), RGB; of a volume numbers (depth, height, width).
    spacing: of a volume mm per voxel along these axes, (1, 1, 1) if it is not known.
    title: the file's name, or a word in its place.
    """

    array: NDArray
    spacing: Sequence[float]
    title: str


def load(given: Input, name: str, volumes: bool) -> Loaded:
    """The image, or the CT volume, that was given.

    Args:
        given: see `vmunet.inference.predictor.Predictor.__call__`.
        name: what messages call an array, such as `image`.
        volumes: whether a volume is expected.

    Raises:
        InputError: it is of the other kind, too large or unreadable, or none of the known types.
    """
    if isinstance(given, str | Path):
        return _from_file(Path(given), volumes)
    if type(given).__module__.partition(".")[0] == "PIL":
        if volumes:
            raise wrong_kind(name, MODEL, volumes)
        return Loaded(_from_pillow(given, name), (1, 1, 1), name)
    if not hasattr(given, "__array__"):
        raise InputError(
            f"{name}: a {type(given).__name__}; expected a path, a picture of Pillow's or a numpy "
            "array; several at once go to Predictor.batch"
        )
    array = np.asarray(given)
    if volumes and array.ndim == 3 and array.dtype == np.uint8 and array.shape[2] in COLOURS:
        raise wrong_kind(f"{name} {array.shape}", MODEL, volumes)
    if not volumes and array.ndim == 3 and array.shape[2] not in (1, *COLOURS):
        raise wrong_kind(f"{name} {array.shape}", MODEL, volumes)
    if not volumes:
        check_image(array, name)
        height, width, _ = array.shape
        check_pixels(width, height, name)
    return Loaded(array, (1, 1, 1), name)


def _from_file(path: Path, volumes: bool) -> Loaded:
    fits, other = (is_nifti, is_image) if volumes else (is_image, is_nifti)
    if other(path):
        raise wrong_kind(path, MODEL, volumes)
    if not path.is_file():
        kind = "CT volume" if volumes else "image"
        raise InputError(f"{path}: no such file; this model segments {kind}s")
    if not fits(path):
        expected = ".nii, .nii.gz" if volumes else ", ".join(SUFFIXES)
        raise InputError(f"{path}: not a file that this model segments; expected {expected}")
    if not volumes:
        return Loaded(read_photo(path), (1, 1, 1), path.name)
    volume = read_volume(path)
    return Loaded(volume.voxels, volume.spacing, path.name)


def _from_pillow(picture: Any, name: str) -> NDArray[np.uint8]:
    """By the rules of `vmunet.data.images`; the orientation tag is ignored there too."""
    width, height = picture.size
    check_pixels(width, height, name)  # before Pillow decodes it
    if (pictures := getattr(picture, "n_frames", 1)) > 1:
        raise InputError(
            f"{name}: a file of {pictures} pictures (pages or frames), and an image is one; give "
            "the one that is meant, with .seek(number) and .copy()"
        )
    try:
        is_opaque = not picture.has_transparency_data
        if picture.mode in ("RGBA", "LA", "PA") or not is_opaque:
            alpha = picture.convert("RGBA").getchannel("A")
            is_opaque = alpha.getextrema()[0] == 255
        elif picture.mode not in LOSSLESS:
            raise InputError(
                f"{name}: a picture of mode {picture.mode}; expected RGB, RGBA, L or P: convert it "
                "as it should look, with .convert('RGB')"
            )
        if not is_opaque:
            raise InputError(
                f"{name}: has transparent pixels, and the colour behind them is unknown; convert "
                "it with .convert('RGB')"
            )
        return np.asarray(picture.convert("RGB"))
    except OSError as error:  # Pillow decodes a file at its first use
        raise InputError(f"{name}: not a readable image ({error}); use an intact copy") from None
