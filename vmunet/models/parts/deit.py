"""DeiT (Touvron et al. 2021), a vision transformer on patches of 16x16 px, with timm's names."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.models.parts.mlp import MLP

PATCH = 16


class Attention(nn.Module):
    """Multi-head self-attention: `(b, n, d) -> (b, n, d)`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # (b, heads, n, d / heads) each
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """A pre-norm transformer layer: `(b, n, d) -> (b, n, d)`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches of 16x16 pixels to tokens: `(b, c, h, w) -> (b, h/16 w/16, d)`."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class DeiT(nn.Module):
    """DeiT for images of one size, as a feature extractor without a class token.

    Args:
        size: height and width of the images.
        dim: width d of the tokens.
        depth: transformer layers.
        heads: heads of the attention; they divide `dim`.
    """

    def __init__(
        self, in_channels: int, size: tuple[int, ...], dim: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.grid = (size[0] // PATCH, size[1] // PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_token.requires_grad_(False)  # published checkpoints hold it, nothing reads it
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], dim))
        self.patch_embed = PatchEmbed(in_channels, dim)
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The tokens as a map, `(b, d, h/16, w/16)`."""
        x = self.norm(self.blocks(self.patch_embed(images) + self.pos_embed))
        return x.transpose(1, 2).unflatten(2, self.grid)
