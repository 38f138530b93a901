"""CT slices as a model sees them: windowed, resized; and label maps resized back."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vmunet.errors import InputError


def window_ct(hu: NDArray, low: float, high: float) -> NDArray[np.float32]:
    """Hounsfield units clipped to [low, high] and scaled to 0..1."""
    clipped = np.clip(hu, low, high).astype(np.float32)
    return (clipped - np.float32(low)) / np.float32(high - low)


def resize_slice(
    image: NDArray[np.float32], size: int, how: Literal["cubic", "area"]
) -> NDArray[np.float32]:
    """A slice (height, width) as a square (size, size)."""
    if image.shape == (size, size):
        return image
    if how == "cubic":
        from scipy.ndimage import zoom

        factors = (size / image.shape[0], size / image.shape[1])
        return zoom(image, factors, order=3)
    from vmunet.data.resize import resize_image

    return resize_image(image[..., None], size, "area")


def resize_labels(labels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels (height, width) of another shape, by the nearest pixel."""
    if labels.shape == shape:
        return labels
    from scipy.ndimage import zoom

    factors = (shape[0] / labels.shape[0], shape[1] / labels.shape[1])
    resized = zoom(labels, factors, order=0)
    if resized.shape != shape:
        raise InputError(f"labels of {labels.shape} became {resized.shape}, not {shape}")
    return resized
