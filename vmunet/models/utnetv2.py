"""UTNetV2: a U-Net whose features and a small semantic map attend to each other.

Gao et al., arXiv 2203.00131 (first version); repository
yhygao/CBIM-Medical-Image-Segmentation, Apache-2.0, its code of March 2022, which MedFormer replaced
later. Written from a description of its layers; the names of the state dict are the published ones.

Of several variants this is the one with the 12.80 M parameters of Table I: 32 channels in the first
level and a semantic map of 3x3 positions (the authors' own configuration has 2x2).

Inside, `x` is the image's feature `(b, c, h, w)` and `semantic` the semantic map `(b, c, 3, 3)`.
Convolutions have no bias, apart from the last one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, scaled
from vmunet.models.parts.bidirectional import (
    BidirectionalTransformer,
    PreActivation,
    SeparableConv,
    conv1x1,
)
from vmunet.models.parts.semantic_map import MapFusion, MapGeneration

CHANNELS = (32, 64, 128, 256, 512)  # of each level
HEADS = (1, 1, 4, 8, 16)  # of the attention in each level
MAP_SIZE = 3  # height and width of the semantic map
FUSION_DIM, FUSION_HEADS, FUSION_DEPTH = 512, 16, 2


class BasicBlock(nn.Module):
    """Two pre-activation 3x3 convolutions, residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = PreActivation(dim)
        self.conv2 = PreActivation(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class Stem(nn.Sequential):
    """A 3x3 convolution and a residual block."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, dim, 3, padding=1, bias=False)
        self.conv2 = BasicBlock(dim)


class PatchMerging(nn.Module):
    """Halve the resolution: `(b, c, h, w) -> (b, dim, h/2, w/2)`; the map only changes channels."""

    def __init__(self, channels: int, dim: int, with_map: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4 * channels)
        self.reduction = SeparableConv(4 * channels, dim)
        self.map_projection = conv1x1(channels, dim) if with_map else None

    def forward(self, x: Tensor, semantic: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.map_projection is not None:
            semantic = self.map_projection(semantic)
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]  # (0,0), (1,0), (0,1), (1,1)
        return self.reduction(self.norm(torch.cat(corners, dim=1))), semantic


class Down(nn.Module):
    """A stage of the encoder: patch merging, residual blocks, transformer blocks.

    Args:
        semantic: "none", or how it gets the map: "generated" here, "carried" from the level above.
    """

    def __init__(
        self, channels: int, dim: int, heads: int, convs: int, depth: int, semantic: str
    ) -> None:
        super().__init__()
        self.patch_merging = PatchMerging(channels, dim, with_map=semantic == "carried")
        self.conv_blocks = nn.Sequential(*[BasicBlock(dim) for _ in range(convs)])
        self.map_gen = MapGeneration(dim, MAP_SIZE) if semantic == "generated" else None
        self.trans_blocks = BidirectionalTransformer(dim, heads, depth)

    def forward(self, x: Tensor, semantic: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x, semantic = self.patch_merging(x, semantic)
        x = self.conv_blocks(x)
        if self.map_gen is not None:
            semantic = self.map_gen(x)
        return self.trans_blocks(x, semantic)


class Up(nn.Module):
    """A stage of the decoder: enlarge by 2, join the skip connection, transformer, residual blocks.

    Args:
        map_channels: channels of all maps that `forward` gets, together.
    """

    def __init__(
        self, channels: int, dim: int, map_channels: int, heads: int, convs: int, depth: int
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels + dim)
        self.reduction = conv1x1(channels + dim, dim)
        self.map_reduction = conv1x1(map_channels, dim)
        self.trans_blocks = BidirectionalTransformer(dim, heads, depth)
        self.conv_blocks = nn.Sequential(*[BasicBlock(dim) for _ in range(convs)])
        if not depth:
            self.map_reduction.requires_grad_(False)  # published, but without transformer unused

    def forward(
        self, x: Tensor, skip: Tensor, maps: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor | None]:
        x = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=True)
        x = self.reduction(self.norm(torch.cat([x, skip], dim=1)))
        semantic = self.map_reduction(torch.cat(list(maps), dim=1)) if maps else None
        x, semantic = self.trans_blocks(x, semantic)
        return self.conv_blocks(x), semantic


class UTNetV2(Model):
    """UTNetV2.

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; the attention keeps its heads.
    """

    title = "UTNetV2"
    stride = 16

    def __init__(self, in_channels: int = 3, num_classes: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        levels = zip(CHANNELS, HEADS, strict=True)
        c0, c1, c2, c3, c4 = (scaled(channels, width, heads) for channels, heads in levels)
        _, h1, h2, h3, h4 = HEADS
        self.inc = Stem(in_channels, c0)
        self.down1 = Down(c0, c1, h1, convs=2, depth=0, semantic="none")
        self.down2 = Down(c1, c2, h2, convs=1, depth=1, semantic="generated")
        self.down3 = Down(c2, c3, h3, convs=0, depth=2, semantic="carried")
        self.down4 = Down(c3, c4, h4, convs=0, depth=2, semantic="carried")
        fusion_dim = scaled(FUSION_DIM, width, FUSION_HEADS)
        self.map_fusion = MapFusion([c2, c3, c4], fusion_dim, FUSION_HEADS, FUSION_DEPTH)
        self.up1 = Up(c4, c3, c4 + c3, h3, convs=0, depth=2)
        self.up2 = Up(c3, c2, c3 + c2, h2, convs=1, depth=1)
        self.up3 = Up(c2, c1, c2, h1, convs=2, depth=0)
        self.up4 = Up(c1, c0, c1, h1, convs=2, depth=0)
        self.outc = nn.Conv2d(c0, num_classes, 1)
        # Nothing reads the map after the last transformer block.
        self.up2.get_submodule("trans_blocks.blocks.0.attn.map_out").requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        x0 = self.inc(self.check(images))
        x1, _ = self.down1(x0, None)
        x2, map2 = self.down2(x1, None)
        x3, map3 = self.down3(x2, map2)
        x4, map4 = self.down4(x3, map3)
        map2, map3, map4 = self.map_fusion([map2, map3, map4])
        x, semantic = self.up1(x4, x3, [map4, map3])
        x, _ = self.up2(x, x2, [semantic, map2])
        x, _ = self.up3(x, x1)
        x, _ = self.up4(x, x0)
        return self.outc(x)
