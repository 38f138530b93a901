"""Bilinear resizing of maps whose corner pixels stay in the corners."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """`(b, c, h, w)` to `(b, c, *size)`."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def double(x: Tensor) -> Tensor:
    """`(b, c, h, w)` to `(b, c, 2h, 2w)`."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
