"""Swin Transformer (Liu et al. 2021): attention inside windows, which every second block shifts.

Feature maps are channels-last, `(batch, height, width, channels)`. Indices and masks are computed
on the CPU, because arithmetic on the device "meta" loads torch's compiler (4 s).

Glossary:

    d  channels
    s  height and width of a map
    w  height and width of a window, at most s
    n  positions of a window, its height times its width
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import by
from vmunet.errors import InputError
from vmunet.model import DropPath
from vmunet.models.parts.mlp import MLP

USUAL_WINDOW = 7
BLOCKED = -100.0  # added to the score of two positions that the shift brought together


def usual_window(sizes: Sequence[Sequence[int]]) -> list[int]:
    """For each axis, the window nearest to 7 (by ratio) that divides or covers all these maps."""
    windows = []
    for lengths in zip(*sizes, strict=True):
        legal = [
            w for w in range(1, max(lengths) + 1) if all(s <= w or s % w == 0 for s in lengths)
        ]
        windows.append(min(legal, key=lambda w: max(w / USUAL_WINDOW, USUAL_WINDOW / w)))
    return windows


def relative_positions(window: Sequence[int]) -> Tensor:
    """The row of the bias table for each pair of a window's positions: `(n, n)`."""
    height, width = window
    rows = torch.arange(height, device="cpu").repeat_interleave(width)
    columns = torch.arange(width, device="cpu").repeat(height)
    down = rows[:, None] - rows + height - 1
    right = columns[:, None] - columns + width - 1
    return down * (2 * width - 1) + right


def to_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """`(b, s, s, d) -> (b, windows, n, d)`."""
    b, height, width, d = x.shape
    h, w = window
    x = x.view(b, height // h, h, width // w, w, d).transpose(2, 3)
    return x.reshape(b, -1, h * w, d)


def from_windows(x: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """`(b, windows, n, d) -> (b, s, s, d)`."""
    b, d = x.shape[0], x.shape[-1]
    (h, w), (height, width) = window, size
    x = x.view(b, height // h, width // w, h, w, d).transpose(2, 3)
    return x.reshape(b, height, width, d)


def shift_mask(size: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """`(windows, n, n)`: blocks pairs of positions that are neighbours only by the shift."""
    regions = []
    for s, w, moved in zip(size, window, shift, strict=True):
        position = torch.arange(s, device="cpu")
        regions.append((position >= s - w).long() + (position >= s - moved).long())
    region = 3 * regions[0][:, None] + regions[1]
    inside = to_windows(region[None, :, :, None], window)[0]  # (windows, n, 1)
    return BLOCKED * (inside != inside.transpose(1, 2)).float()


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learnt bias for each offset of two positions."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: Sequence[int], heads: int) -> None:
        super().__init__()
        self.heads = heads
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim)
        index = relative_positions(window).to(self.qkv.weight.device)
        self.register_buffer("relative_position_index", index)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(b, windows, n, d) -> (b, windows, n, d)`; the mask, `(windows, n, n)`, is added."""
        b, windows, n, d = x.shape
        qkv = self.qkv(x).view(b * windows, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # (b windows, heads, n, d / heads) each
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(1, n, n, self.heads).permute(0, 3, 1, 2)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(b, 1, 1, 1)  # (b windows, heads, n, n)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(y.transpose(1, 2).reshape(b, windows, n, d))


class SwinBlock(nn.Module):
    """Pre-norm window attention and MLP: `(b, s, s, d) -> (b, s, s, d)`.

    A window is cut to the map. Along an axis that a single window covers, nothing is shifted.

    Raises:
        InputError: the windows do not divide the map.
    """

    attn_mask: Tensor | None

    def __init__(
        self,
        dim: int,
        heads: int,
        size: Sequence[int],
        window: Sequence[int],
        shifted: bool,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = [min(w, s) for w, s in zip(window, size, strict=True)]
        if any(s % w for w, s in zip(self.window, size, strict=True)):
            raise InputError(f"windows of {by(window)} do not divide a map of {by(size)}")
        self.shift = [
            w // 2 if shifted and w < s else 0 for w, s in zip(self.window, size, strict=True)
        ]
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, self.window, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim)
        mask = shift_mask(size, self.window, self.shift) if any(self.shift) else None
        device = self.norm1.weight.device
        self.register_buffer("attn_mask", None if mask is None else mask.to(device))

    def attend(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        if any(self.shift):
            x = x.roll([-shift for shift in self.shift], dims=(1, 2))
        x = from_windows(self.attn(to_windows(x, self.window), self.attn_mask), self.window, size)
        return x.roll(self.shift, dims=(1, 2)) if any(self.shift) else x

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinStage(nn.Module):
    """Swin blocks, every second one shifted, then merging or expanding if there is one."""

    def __init__(
        self,
        dim: int,
        heads: int,
        size: Sequence[int],
        window: Sequence[int],
        drop_paths: Sequence[float],
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                SwinBlock(dim, heads, size, window, shifted=i % 2 == 1, drop_path=rate)
                for i, rate in enumerate(drop_paths)
            )
        )
        self.downsample, self.upsample = downsample, upsample

    def resized(self, x: Tensor) -> Tensor:
        for resize in (self.downsample, self.upsample):
            if resize is not None:
                x = resize(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.resized(self.blocks(x))


class PatchExpand(nn.Module):
    """Enlarge by `scale`, to `out` channels: `(b, s, s, d) -> (b, scale s, scale s, out)`.

    The expanded channels are ordered (row, column, channel), unlike nn.PixelShuffle's. VM-UNet's
    patch expanding is the one with out = d / scale.
    """

    def __init__(self, dim: int, scale: int, out: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale**2 * out, bias=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        s = self.scale
        x = self.expand(x).view(b, h, w, s, s, -1).transpose(2, 3)  # (b, h, s, w, s, out)
        return self.norm(x.reshape(b, h * s, w * s, -1))
