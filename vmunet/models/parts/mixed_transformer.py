"""MT-UNet's mixed transformer module: attention inside windows, between them, and to a memory.

Wang et al., "Mixed Transformer U-Net for Medical Image Segmentation", ICASSP 2022, section 2.

Two oddities of the published code stay. A map that the windows do not divide is padded by zeros,
but a copy of its last rows and columns fills the lower right corner. The axial attention has an
output layer that is never used. The description that this was written from does not say how the
scalars of `GaussianAxes` start: here with shift 1 and bias 0.

Glossary, with the paper's names:

    LGG-SA  local-global Gaussian-weighted self-attention: `LocalGlobalAttention`
    EA      external attention, to memory slots that all images share: `ExternalAttention`
    MTM     mixed transformer module, LGG-SA and then EA: `MixedTransformer`

    d  channels
    h  height of a map, w its width
    n  positions: of a window, or of the map
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 4
HEADS = 8  # of the attention inside windows
MEMORY_HEADS = 32
SLOTS = 64  # memory slots of a head


class Projections(nn.Module):
    """The four linear layers of an attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_layer = nn.Linear(dim, dim)
        self.key_layer = nn.Linear(dim, dim)
        self.value_layer = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query_layer(x), self.key_layer(x), self.value_layer(x)


class WindowAttention(nn.Module):
    """Multi-head attention inside each window: `(b, windows, n, d) -> (b, windows, n, d)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = Projections(dim)

    def forward(self, x: Tensor) -> Tensor:
        b, windows, n, d = x.shape
        q, k, v = (
            y.view(b * windows, n, HEADS, d // HEADS).transpose(1, 2) for y in self.attention.qkv(x)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.attention.out(y.reshape(b, windows, n, d))


class WindowPooling(nn.Module):
    """One token for each window, a weighted sum: `(b, windows, n, d) -> (b, windows, d)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, WINDOW**2)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.linear(x.mean(2)).softmax(-1)  # (b, windows, n)
        return (weights[:, :, None] @ x).squeeze(2)


class AxialProjections(Projections):
    """The projections of the axial attention, which never uses the last one."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.out.requires_grad_(False)  # so it gets no gradient; its parameters count


class GaussianAxes(nn.Module):
    """Attention along rows and columns, less to what is far: `(b, h, w, d) -> (b, h, w, d)`.

    Two softmaxes, one for each axis; the scores are not divided by the square root of d.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))  # the softmax cancels it

    def along_rows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        position = torch.arange(q.shape[2], device=q.device)
        squared = (position[:, None] - position).square()
        scores = q @ k.transpose(2, 3) - (self.shift * squared + self.bias)  # (b, h, w, w)
        return scores.softmax(-1) @ v

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        columns = self.along_rows(*(y.transpose(1, 2) for y in (q, k, v)))
        return self.along_rows(q, k, v) + columns.transpose(1, 2)


def pad_to_windows(x: Tensor) -> Tensor:
    """Pad `(b, h, w, d)` at the bottom and right: zeros, but a copy in the lower right corner."""
    _, h, w, _ = x.shape
    bottom, right = -h % WINDOW, -w % WINDOW
    padded = F.pad(x, (0, 0, 0, right, 0, bottom))
    if bottom and right:
        corner = x[:, -bottom:, -right:]  # smaller than the padding if the map is a single row
        above, left = h + bottom - corner.shape[1], w + right - corner.shape[2]
        padded = padded + F.pad(corner, (0, 0, left, 0, above, 0))
    return padded


class LocalGlobalAttention(nn.Module):
    """Attention inside windows, and between their pooled tokens: `(b, h, w, d) -> (b, h, w, d)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.win_atten = WindowAttention(dim)
        self.dlightconv = WindowPooling(dim)
        self.global_atten = AxialProjections(dim)
        self.gaussiantrans = GaussianAxes()
        self.queeze = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = pad_to_windows(x)
        b, h, w, d = x.shape
        rows, columns = h // WINDOW, w // WINDOW
        windows = x.view(b, rows, WINDOW, columns, WINDOW, d).transpose(2, 3)
        local = self.win_atten(windows.reshape(b, rows * columns, WINDOW**2, d))
        pooled = self.dlightconv(local).view(b, rows, columns, d)
        pooled = self.gaussiantrans(*self.global_atten.qkv(pooled)).permute(0, 3, 1, 2)
        local = local.view(b, rows, columns, WINDOW, WINDOW, d).permute(0, 5, 1, 3, 2, 4)
        everywhere = F.interpolate(pooled, size=(h, w), mode="bilinear", align_corners=True)
        x = self.queeze(torch.cat([everywhere, local.reshape(b, d, h, w)], dim=1))
        return x[:, :, :height, :width].permute(0, 2, 3, 1)


class ExternalAttention(nn.Module):
    """Attention to learnt memory slots: `(b, n, d) -> (b, n, d)`.

    Softmax over the positions, then division by the sum over the slots.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        head = 4 * dim // MEMORY_HEADS
        self.query_liner = nn.Linear(dim, 4 * dim)
        self.linear_0 = nn.Linear(head, SLOTS)
        self.linear_1 = nn.Linear(SLOTS, head)
        self.proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q = self.query_liner(x).view(b, n, MEMORY_HEADS, -1)
        weights = self.linear_0(q).softmax(1)  # (b, n, heads, slots)
        weights = weights / (1e-9 + weights.sum(-1, keepdim=True))
        return self.proj(self.linear_1(weights).reshape(b, n, 4 * d))


class MixedTransformer(nn.Module):
    """MTM: pre-norm local-global and external attention, `(b, d, h, w) -> (b, d, h, w)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.SlayerNorm = nn.LayerNorm(dim, eps=1e-6)
        self.ElayerNorm = nn.LayerNorm(dim, eps=1e-6)
        self.CSAttention = LocalGlobalAttention(dim)
        self.EAttention = ExternalAttention(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x + self.CSAttention(self.SlayerNorm(x))
        y = self.EAttention(self.ElayerNorm(x).flatten(1, 2))
        return (x + y.view(x.shape)).permute(0, 3, 1, 2)
