"""Transformer blocks in which an image's feature and a small semantic map attend to each other.

    feature       of the image, `(b, c, h, w)`
    semantic map  a few positions that stand for the whole image, `(b, c, m, m)`

No convolution has a bias unless it is written. "Pre-activation" is batch norm, GELU, convolution.
"""

from torch import Tensor, nn
from torch.nn import functional as F


def conv1x1(channels: int, dim: int) -> nn.Conv2d:
    return nn.Conv2d(channels, dim, 1, bias=False)


class PreActivation(nn.Module):
    """Batch norm, GELU (unless switched off) and a convolution that keeps size and channels."""

    def __init__(
        self, channels: int, kernel: int = 3, groups: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.GELU() if activate else nn.Identity()
        self.conv = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(self.norm(x)))


class SeparableConv(nn.Module):
    """A 3x3 convolution within each channel, then a 1x1 convolution."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = conv1x1(channels, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class BidirectionalAttention(nn.Module):
    """One matrix of scores, q_feature . q_map, serves both ways: feature to map, map to feature."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.feat_qv = SeparableConv(dim, 2 * dim)
        self.feat_out = SeparableConv(dim, dim)
        self.map_qv = conv1x1(dim, 2 * dim)
        self.map_out = conv1x1(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """`(b, c, h, w) -> (b, heads, hw, c / heads)`; channel d * heads + i is d of head i."""
        return x.flatten(2).unflatten(1, (-1, self.heads)).permute(0, 2, 3, 1)

    def forward(self, feature: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor]:
        feature_q, feature_v = map(self.split, self.feat_qv(feature).chunk(2, dim=1))
        map_q, map_v = map(self.split, self.map_qv(semantic).chunk(2, dim=1))
        to_feature = F.scaled_dot_product_attention(feature_q, map_q, map_v)
        to_map = F.scaled_dot_product_attention(map_q, feature_q, feature_v)
        return (
            self.feat_out(to_feature.permute(0, 3, 1, 2).reshape(feature.shape)),
            self.map_out(to_map.permute(0, 3, 1, 2).reshape(semantic.shape)),
        )


class SqueezeExcite(nn.Module):
    """Weight every channel by what two 1x1 convolutions (with bias) make of the channels' means."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        squeeze, excite = nn.Conv2d(dim, dim // 4, 1), nn.Conv2d(dim // 4, dim, 1)
        self.excitation = nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excitation(x.mean((2, 3), keepdim=True))


class MBConv(nn.Module):
    """Depthwise convolution, squeeze and excitation, 1x1 convolution without GELU; residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = PreActivation(dim, groups=dim)
        self.se_block = SqueezeExcite(dim)
        self.pointwise = PreActivation(dim, kernel=1, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(self.se_block(self.depthwise(x)))


class BidirectionalBlock(nn.Module):
    """Bidirectional attention, residual for feature and map; then MBConv for the feature."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.attn = BidirectionalAttention(dim, heads)
        self.feedforward = MBConv(dim)

    def forward(self, feature: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor]:
        to_feature, to_map = self.attn(self.norm1(feature), self.norm2(semantic))
        return self.feedforward(feature + to_feature), semantic + to_map


class BidirectionalTransformer(nn.Module):
    """`depth` such blocks, which keep all shapes; without blocks there need be no map."""

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BidirectionalBlock(dim, heads) for _ in range(depth))

    def forward(self, feature: Tensor, semantic: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for block in self.blocks:
            feature, semantic = block(feature, semantic)
        return feature, semantic
