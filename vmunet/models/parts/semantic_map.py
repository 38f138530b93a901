"""Semantic maps: a few positions that stand for a whole image, `(b, c, m, m)`.

They are made from an image's feature, and fused over the levels of a U-Net.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.models.parts.bidirectional import conv1x1
from vmunet.models.parts.mlp import MLP


class MapGeneration(nn.Module):
    """The first semantic map: each of its m x m positions is a weighted mean of all pixels."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.grid = (size, size)
        self.base_proj = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.semantic_proj = nn.Conv2d(dim, size**2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.semantic_proj(x).flatten(2).softmax(-1)  # (b, mm, hw)
        means = self.base_proj(x).flatten(2) @ weights.transpose(1, 2)  # (b, c, mm)
        return means.unflatten(2, self.grid)


class PreNorm(nn.Module):
    """`x + fn(LayerNorm(x))`."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention: `(b, n, d) -> (b, n, d)`.

    The heads split the channels as (head, channel of it) but are joined as (channel of it, head):
    so does the published code.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v)  # (b, heads, n, d / heads)
        return self.to_out(y.permute(0, 2, 3, 1).flatten(2))


class Encoder(nn.Module):
    """Transformer layers on tokens: `(b, n, d) -> (b, n, d)`."""

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[
                nn.Sequential(
                    PreNorm(dim, SelfAttention(dim, heads)), PreNorm(dim, MLP(dim, factor=1))
                )
                for _ in range(depth)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MapFusion(nn.Module):
    """Transformer layers over the positions of all levels' maps together.

    Args:
        dims: channels of each level's map.
        dim: width of the transformer.
    """

    def __init__(self, dims: Sequence[int], dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.in_proj = nn.ModuleList(conv1x1(channels, dim) for channels in dims)
        self.fusion = Encoder(dim, heads, depth)
        self.out_proj = nn.ModuleList(conv1x1(dim, channels) for channels in dims)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        tokens = [proj(m).flatten(2) for proj, m in zip(self.in_proj, maps, strict=True)]
        fused = self.fusion(torch.cat(tokens, dim=2).transpose(1, 2)).transpose(1, 2)
        grids = fused.unflatten(2, (len(maps), *maps[0].shape[2:])).unbind(2)
        return [proj(grid) for proj, grid in zip(self.out_proj, grids, strict=True)]
