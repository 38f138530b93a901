"""MT-UNet: a U-Net whose deeper levels mix attention inside windows, between them and over images.

Wang et al., "Mixed Transformer U-Net for Medical Image Segmentation", ICASSP 2022 (arXiv
2111.04734); repository Dootmaan/MT-UNet, MIT. Written from a description of its layers; the names
of the state dict are the published ones.

The published code is fixed to 224 px; here the position embedding follows the size. The mixed
transformer module, with its oddities, is in `vmunet.models.parts.mixed_transformer`.

C is the number of channels of the first stage, 64 in the paper. Feature maps are channels-first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, scaled
from vmunet.models.parts.mixed_transformer import HEADS, MixedTransformer
from vmunet.models.parts.sizes import legal_size

STEM = 8  # the stem divides height and width by it


class ConvBN(nn.Module):
    """Convolution without bias and batch norm."""

    def __init__(self, channels: int, dim: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel - stride) // 2
        self.conv = nn.Conv2d(channels, dim, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, and a 1x1 convolution of their result added to it."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList([ConvBN(channels, dim, 3), ConvBN(dim, dim, 3)])
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv[1](F.relu(self.conv[0](x)))
        return F.relu(h + self.bn(self.conv1(h)))


class Stem(nn.Module):
    """Convolutions at 1, 1/2 and 1/4 of the images' size, each pooled after; tokens at 1/8."""

    def __init__(self, in_channels: int, C: int, size: Sequence[int]) -> None:
        super().__init__()
        self.grid = [side // STEM for side in size]
        self.model = nn.ModuleDict(
            {
                "res1": DoubleConv(in_channels, C),
                "res2": DoubleConv(C, 2 * C),
                "res3": DoubleConv(2 * C, 4 * C),
            }
        )
        self.trans_dim = ConvBN(4 * C, 4 * C, 1)
        self.position_embedding = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], 4 * C))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for block in self.model.values():
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        position = self.position_embedding.transpose(1, 2).reshape(1, -1, *self.grid)
        return F.relu(self.trans_dim(x)) + position, skips


class EncoderLevel(nn.Module):
    """Two mixed transformers, whose output is the skip connection, then half the resolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        halve = ConvBN(dim, 2 * dim, 2, stride=2)
        self.block = nn.ModuleList([MixedTransformer(dim), MixedTransformer(dim), halve])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.block[1](self.block[0](x))
        return F.relu(self.block[2](skip)), skip


class DecoderLevel(nn.Module):
    """Twice the resolution, the skip connection joins, perhaps fewer channels, two transformers."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        enlarge = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        reduce = [nn.Conv2d(channels, dim, 1)] if channels != dim else []
        transformers = [MixedTransformer(dim), MixedTransformer(dim)]
        self.block = nn.ModuleList([enlarge, *reduce, *transformers])

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([self.block[0](x), skip], dim=1)
        for layer in self.block[1:]:
            x = layer(x)
        return x


class DecoderStem(nn.Module):
    """From 1/8 of the images' size to all of it, by convolutions."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.block = nn.ModuleDict()
        for i, dim in enumerate((4 * C, 2 * C, C), start=1):
            self.block[f"trans{i}"] = nn.ConvTranspose2d(2 * dim, dim, 2, stride=2)
            self.block[f"res{i}"] = DoubleConv(2 * dim, dim)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for i, skip in enumerate(reversed(skips), start=1):
            x = self.block[f"trans{i}"](x)
            x = self.block[f"res{i}"](torch.cat([skip, x], dim=1))
        return x


class MTUNet(Model):
    """MT-UNet (paper, section 2).

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; heads and memory slots stay.
        size: side of the images, or (height, width): the position embedding has one entry for
            each patch of 8x8 px.
    """

    title = "MT-UNet"
    stride = 32
    sized = True

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 9,
        width: float = 1.0,
        size: int | Sequence[int] = 224,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.size = legal_size(type(self), size)
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "size": list(self.size),
        }
        C = scaled(64, width, HEADS // 4)  # the first attention has 4 C channels
        self.stem = Stem(in_channels, C, self.size)
        self.encoder = nn.ModuleList([EncoderLevel(4 * C), EncoderLevel(8 * C)])
        self.bottleneck = nn.Sequential(MixedTransformer(16 * C), MixedTransformer(16 * C))
        # The second level keeps the channels of its input and skip connection together.
        self.decoder = nn.ModuleList([DecoderLevel(16 * C, 8 * C), DecoderLevel(8 * C, 8 * C)])
        self.decoder_stem = DecoderStem(C)
        self.SegmentationHead = nn.Conv2d(C, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` of images of the size it was built for."""
        x, stem_skips = self.stem(self.check(images))
        skips = []
        for level in self.encoder:
            x, skip = level(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for level, skip in zip(self.decoder, reversed(skips), strict=True):
            x = level(x, skip)
        return self.SegmentationHead(self.decoder_stem(x, stem_skips))
