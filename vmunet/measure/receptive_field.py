"""Effective receptive fields: which pixels of an image change a feature, and by how much.

Luo et al. (2016) define them, and RepLKNet and VMamba draw them, as the gradient of the central
position's features with respect to the image, averaged over images. Two features of VM-UNet are
examined, of other models the second alone:

bottleneck: the output of the encoder's last stage, at the position of index n // 2 of n along both
    axes; the sum of its channels after a ReLU, as in the published scripts.
output: the logits at the pixel of index n // 2; the sum over classes without a ReLU, which would
    give 0 whenever the pixel is background.

The gradient's absolute values are summed over the colours. (The published scripts keep only its
positive part; here a pixel counts whether it raises or lowers the feature.)
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vmunet.architecture import Model
from vmunet.errors import InputError
from vmunet.model import VMUNet

SHARES = (0.2, 0.3, 0.5, 0.99)  # of the contribution, as in RepLKNet's table
Features = Callable[[Tensor], Sequence[Tensor]]


def feature_names(model: Model) -> tuple[str, ...]:
    """The names of the features that are examined."""
    return ("bottleneck", "output") if isinstance(model, VMUNet) else ("output",)


def features_of(model: Model) -> Features:
    """A function from images (1, channels, h, w) to the examined features, as maps (1, h', w').

    One pass gives all maps, in the order of `feature_names`.
    """
    if not isinstance(model, VMUNet):
        return lambda images: (model(images).sum(1),)

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        handle = model.layers[-1].register_forward_hook(lambda *call: seen.append(call[-1]))
        try:
            logits = model(images)
        finally:
            handle.remove()
        return seen[0].relu().sum(-1), logits.sum(1)

    return features


def receptive_fields(
    model: nn.Module, features: Features, images: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    """The effective receptive field of each feature, averaged over the images.

    Args:
        model: it is put into eval mode, and its parameters need no gradients afterwards.
        features: a function from images (1, channels, h, w) to maps (1, h', w').
        images: uint8 (images, h, w, channels), 0..255; they are processed one at a time.

    Returns:
        For each map float32 (h, w), 0 or more: the feature's change by a pixel's change of 1.

    Raises:
        InputError: a gradient is not finite, or there are no images.
    """
    from tqdm import tqdm

    if not len(images):
        raise InputError("receptive field: no images; at least one is needed")
    model.eval().requires_grad_(False)
    parameter = next(model.parameters())
    totals: list[Tensor] = []
    for image in tqdm(images, desc="receptive field", unit="image", disable=None, leave=False):
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        pixels = pixels.to(parameter.device, parameter.dtype).requires_grad_()
        fields = [field.double() for field in _fields(features, pixels)]
        totals = [a + b for a, b in zip(totals, fields, strict=True)] if totals else fields
    averages = [(total / len(images)).float().cpu().numpy() for total in totals]
    if not all(np.isfinite(average).all() for average in averages):
        raise InputError("receptive field: a gradient is not finite; the run diverged, repeat it")
    return averages


def _fields(features: Features, pixels: Tensor) -> list[Tensor]:
    """Absolute gradients (h, w) of the central positions for one image (1, channels, h, w)."""
    maps = features(pixels)
    gradients = []
    for i, values in enumerate(maps):
        centre = values[0, values.shape[1] // 2, values.shape[2] // 2]
        (gradient,) = torch.autograd.grad(centre, pixels, retain_graph=i + 1 < len(maps))
        gradients.append(gradient[0].abs().sum(0))
    return gradients


def centre_of(size: int, positions: int) -> float:
    """The middle of the central position's own pixels, counted in pixels from 0.

    Args:
        size: pixels along an axis.
        positions: positions along it, which share the pixels evenly: `size` for the output,
            a 32nd of it for the bottleneck.
    """
    span = size / positions
    return span * (positions // 2) + (span - 1) / 2


def area_fractions(
    field: NDArray[np.floating], centre: float, shares: Sequence[float] = SHARES
) -> list[float]:
    """RepLKNet's measure: the area of the smallest square that holds a share of the contribution.

    Args:
        field: (size, size), 0 or more.
        centre: the squares' centre along both axes; see `centre_of`. The published script takes
            the image's middle. If there are few positions, the central one is half of its span
            away from there.
        shares: shares of the field's sum, 0..1.

    Returns:
        For each share the area of the smallest square with this centre that holds it, as a
        fraction of the image's area, 0..1: side^2 / size^2, without the part of the square outside
        the image. nan if the field is 0 everywhere.
    """
    size = len(field)
    distance = np.abs(np.arange(size) - centre)
    # half of the side of the square that reaches a pixel
    rings = np.maximum(distance[:, None], distance)
    halves, ring = np.unique(rings, return_inverse=True)
    held = np.bincount(ring.ravel(), field.ravel().astype(np.float64), len(halves)).cumsum()
    area = np.bincount(ring.ravel(), minlength=len(halves)).cumsum() / size**2
    if held[-1] <= 0:
        return [float("nan")] * len(shares)
    # The factor allows for rounding, which may make equal sums differ.
    first_enough = np.searchsorted(held, np.asarray(shares) * held[-1] * (1 - 1e-12))
    return [float(area[i]) for i in first_enough]
