"""Prepare axial CT slices for the model and resize its labels, for training and inference.

There are two ways of resizing, which place pixels differently; images and labels of one run always
use the same way, so that they stay aligned:

`cubic`, as in the published code: `scipy.ndimage.zoom` with cubic splines for the image and order 0
for the labels. The centres of the corner pixels stay in place, and an image that shrinks is
sampled, not averaged.

`area`: pixels are areas (`vmunet.data.resize`), and an image that shrinks is averaged. A label is
the one at the target pixel's centre, by the same geometry.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vmunet.data.resize import resize_image
from vmunet.errors import InputError

Float = NDArray[np.float32]
Resize = Literal["cubic", "area"]
PERCENTILES = (0.5, 99.5)  # of a volume without a window; they become 0 and 1


def window_ct(hu: NDArray, low: float, high: float) -> Float:
    """Clip CT values to a window and stretch it to 0..1.

    Args:
        hu: any shape and number type, Hounsfield units.
        low, high: the window, HU; the paper's code has -125 and 275 for Synapse.

    Returns:
        float32 of the same shape, 0..1.

    Raises:
        InputError: the window is empty or not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"window {low} to {high} HU: expected two numbers, the lower one first")
    clipped = np.clip(np.asarray(hu, dtype=np.float32), low, high)
    clipped -= np.float32(low)
    clipped /= np.float32(high - low)
    return clipped


def percentiles(volume: NDArray) -> tuple[float, float]:
    """The two values that become 0 and 1 in a volume without a window; they are never equal."""
    low, high = (float(value) for value in np.percentile(volume, PERCENTILES))
    return low, high if high > low else low + 1


def resize_slice(image: NDArray, size: int, how: Resize) -> Float:
    """Resize a slice to a square, whatever its proportions are, as the published code does.

    Args:
        image: (height, width).
        size: side of the result, px.
        how: see the module; `cubic` overshoots at edges by up to a fifth of their height, as it
            does in the published code.

    Returns:
        float32 (size, size); the slice itself if it has that size already.

    Raises:
        InputError: `how` is another word.
    """
    check_resize(how)
    pixels: Float = image.astype(np.float32, copy=False)
    if pixels.shape == (size, size):
        return pixels
    if how == "area":
        return resize_image(pixels, size, "area")
    from scipy.ndimage import zoom

    height, width = pixels.shape
    return zoom(pixels, (size / height, size / width), order=3)


def resize_labels(
    labels: NDArray[np.uint8], shape: tuple[int, int], how: Resize = "cubic"
) -> NDArray[np.uint8]:
    """Resize a label map; every pixel of the result has one of its labels.

    Args:
        labels: uint8 (height, width).
        shape: height and width of the result, px.
        how: how the image was resized, see the module. With the other geometry an organ's border
            is off by up to half of a small pixel near the image's edge.

    Returns:
        uint8 of `shape`; the map itself if it has that shape already.

    Raises:
        InputError: `how` is another word.
    """
    check_resize(how)
    if labels.shape == tuple(shape):
        return labels
    from scipy.ndimage import zoom

    factors = (shape[0] / labels.shape[0], shape[1] / labels.shape[1])
    if how == "area":
        return zoom(labels, factors, order=0, grid_mode=True, mode="nearest")
    return zoom(labels, factors, order=0)


def check_resize(how: str) -> None:
    """Raise InputError if `how` is not one of `Resize`."""
    if how not in get_args(Resize):
        raise InputError(f"resize '{how}': expected {' or '.join(get_args(Resize))}")
