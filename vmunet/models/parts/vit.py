"""A vision transformer (Dosovitskiy et al. 2021) on a ResNet's features, as TransUNet puts them.

n    tokens: the pixels of the feature map, row by row
d    channels of a token
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import scaled
from vmunet.models.parts.mlp import MLP
from vmunet.models.parts.resnet_v2 import STRIDE, ResNetV2

DIM, HEADS, DEPTH = 768, 12, 12
DROPOUT = 0.1
EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Patches of a map to tokens with learnt positions: `(b, c, h, w) -> (b, n, d)`."""

    def __init__(self, inputs: int, dim: int, patch: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.patch_embeddings = nn.Conv2d(inputs, dim, kernel_size=patch, stride=patch)
        self.position_embeddings = nn.Parameter(torch.zeros(1, grid[0] * grid[1], dim))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embeddings(x).flatten(2).transpose(1, 2)
        return self.dropout(tokens + self.position_embeddings)


def as_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """`(b, n, d) -> (b, d, h, w)`."""
    return tokens.transpose(1, 2).unflatten(2, tuple(grid))


class Attention(nn.Module):
    """Self-attention with several heads: `(b, n, d) -> (b, n, d)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def attend(self, x: Tensor, *values: Tensor) -> Sequence[Tensor]:
        """Values `(b, n, d)`, each token's mixed by its attention to all tokens of `x`."""
        query, key, *split = (
            t.unflatten(2, (HEADS, -1)).transpose(1, 2)  # (b, heads, n, d / heads)
            for t in (self.query(x), self.key(x), *values)
        )
        mixed = F.scaled_dot_product_attention(query, key, torch.cat(split, dim=-1))
        return [t.transpose(1, 2).flatten(2) for t in mixed.chunk(len(values), dim=-1)]

    def forward(self, x: Tensor) -> Tensor:
        (mixed,) = self.attend(x, self.value(x))
        return self.out(mixed)


class Block(nn.Module):
    """Attention and an MLP on normalised tokens, each added to them: `(b, n, d) -> (b, n, d)`."""

    def __init__(self, dim: int, attention: Attention) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, EPS)
        self.ffn_norm = nn.LayerNorm(dim, EPS)
        self.ffn = MLP(dim, dropout=DROPOUT)
        self.attn = attention

    def feed_forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.ffn_norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(x + self.attn(self.attention_norm(x)))


class Encoder(nn.Module):
    """One block for each attention and a last norm: `(b, n, d) -> (b, n, d)`."""

    def __init__(self, dim: int, attentions: Iterable[Attention]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(dim, attention) for attention in attentions)
        self.encoder_norm = nn.LayerNorm(dim, EPS)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layer:
            x = block(x)
        return self.encoder_norm(x)


class HybridEmbedding(PatchEmbedding):
    """Images to tokens, one for each pixel of the ResNet's features.

    Attributes:
        dim: channels of a token.
        grid: rows and columns of tokens.
    """

    def __init__(self, in_channels: int, width: float, size: Sequence[int]) -> None:
        resnet = ResNetV2(in_channels, width)
        dim, grid = scaled(DIM, width, HEADS), [side // STRIDE for side in size]
        super().__init__(resnet.channels, dim, 1, grid)
        self.dim, self.grid = dim, grid
        self.hybrid_model = resnet

    def embed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens, and the ResNet's skips."""
        features, skips = self.hybrid_model(images)
        return self(features), skips
