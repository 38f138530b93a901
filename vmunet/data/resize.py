"""Normalisation and resizing, shared by preprocessing, evaluation and inference.

Pixels are areas: the centre of pixel i is at i + 0.5 (half-pixel centres), for images and for
masks, so that they stay aligned at every scale.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def min_max(image: NDArray) -> Float:
    """Stretch an image's values to 0..255, over all its channels together.

    The published code first subtracts a dataset mean and divides by a deviation; both cancel here.
    A constant image becomes zeros; the published code divides by zero.

    Args:
        image: (height, width, channels), any number type.

    Returns:
        float32 of the same shape, 0..255.
    """
    low, high = float(image.min()), float(image.max())
    stretched = image.astype(np.float32)
    stretched -= np.float32(low)
    if high > low:
        stretched *= np.float32(255 / (high - low))
        np.clip(stretched, 0, 255, out=stretched)  # the last bit may round above 255
    return stretched


def resize_image(image: NDArray, size: int, how: Literal["bilinear", "area"]) -> Float:
    """Resize to a square, whatever the proportions are, as the published code does.

    Args:
        image: (height, width, channels), uint8 or float32.
        size: side of the result in pixels.
        how: `bilinear` mixes the 2x2 pixels nearest to each target pixel's centre (no
            antialiasing: `torch.nn.functional.interpolate(..., antialias=False)`); `area` averages
            all pixels that a target pixel covers along an axis that shrinks, and is bilinear along
            an axis that grows.

    Returns:
        float32 (size, size, channels), within the input's range.
    """
    import cv2

    pixels: NDArray = image.astype(np.float32, copy=False)
    height, width = pixels.shape[:2]
    if how == "area" and (height > size or width > size):
        smaller = (min(width, size), min(height, size))
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def resize_mask(
    mask: NDArray[np.uint8], size: int, how: Literal["bilinear", "nearest"]
) -> NDArray[np.uint8]:
    """Resize a mask to a square.

    Args:
        mask: uint8 (height, width), 0 and 255, or with `bilinear` levels between them.
        size: side of the result in pixels.
        how: `bilinear` gives soft targets (255 times the share, rounded); `nearest` keeps two
            values: it takes the pixel at each target pixel's centre.

    Returns:
        uint8 (size, size), 0..255.
    """
    import cv2

    if how == "nearest":
        resized = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
        return resized  # type: ignore[return-value]
    soft = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(soft).astype(np.uint8)
