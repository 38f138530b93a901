"""Tensors of published weights that depend on the image's size, made to fit another one."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def resized_positions(positions: Tensor, grid: Sequence[int]) -> Tensor:
    """A vision transformer's position embedding for another grid, without the class token.

    It is bilinear and the corners stay. TransFuse's authors do the same; TransUNet's authors zoom
    with order 1, which is the same function.

    Args:
        positions: `(1, 1 + side * side, d)`, the class token's first.
        grid: rows and columns of tokens.

    Returns:
        `(1, rows * columns, d)`.
    """
    side = math.isqrt(positions.shape[1] - 1)
    tokens = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if list(grid) != [side, side]:
        tokens = F.interpolate(tokens, size=tuple(grid), mode="bilinear", align_corners=True)
    return tokens.flatten(2).transpose(1, 2)


def resized_bias_table(table: Tensor, window: Sequence[int]) -> Tensor:
    """A Swin Transformer's table of relative position biases for windows of another size.

    It is bicubic, as Swin Transformer's authors resize it for fine-tuning.

    Args:
        table: `((2 w - 1) ** 2, heads)` of square windows with side w.
        window: height and width of the new windows.

    Returns:
        `((2 height - 1) * (2 width - 1), heads)`.
    """
    side = math.isqrt(table.shape[0])
    size = tuple(2 * w - 1 for w in window)
    if size == (side, side):
        return table
    maps = table.T.unflatten(1, (side, side))[None]  # (1, heads, 2 w - 1, 2 w - 1)
    maps = F.interpolate(maps, size=size, mode="bicubic", align_corners=False)
    return maps[0].flatten(1).T
