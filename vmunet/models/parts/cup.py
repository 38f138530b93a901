"""The cascaded upsampler, the decoder of TransUNet (Chen et al. 2021): from 1/16 to full size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import scaled
from vmunet.models.parts.conv import conv_norm_relu

FIRST = 512
CHANNELS = (256, 128, 64, 16)


def upsample(x: Tensor) -> Tensor:
    """Twice the size; the corners stay."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def joined(x: Tensor, skip: Tensor | None) -> Tensor:
    """`x` at twice the size with the skip's channels, if there is a skip."""
    x = upsample(x)
    return x if skip is None else torch.cat([x, skip], dim=1)


def block_channels(skips: Sequence[int], width: float) -> list[tuple[int, int, int]]:
    """For each block the channels of its input, of its skip and of its output."""
    outputs = [scaled(channels, width) for channels in CHANNELS]
    inputs = [scaled(FIRST, width), *outputs[:-1]]
    return list(zip(inputs, [*skips, 0], outputs, strict=True))


class DecoderBlock(nn.Module):
    """Upsampling, the skip, two convolutions: `(b, c, h, w) -> (b, c', 2h, 2w)`."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(inputs + skip, outputs, 3, bias=False)
        self.conv2 = conv_norm_relu(outputs, outputs, 3, bias=False)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        return self.conv2(self.conv1(joined(x, skip)))


class Cup(nn.Module):
    """Features at 1/16 and skips at 1/8, 1/4 and 1/2 to a map of the images' size.

    Attributes:
        out_channels: channels of the map.
    """

    def __init__(self, in_channels: int, skip_channels: Sequence[int], width: float) -> None:
        super().__init__()
        channels = block_channels(skip_channels, width)
        self.out_channels = channels[-1][-1]
        self.conv_more = conv_norm_relu(in_channels, channels[0][0], 3, bias=False)
        self.blocks = nn.ModuleList(DecoderBlock(*block) for block in channels)

    def forward(self, features: Tensor, skips: Sequence[Tensor]) -> Tensor:
        x = self.conv_more(features)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return x


def segmentation_head(in_channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, num_classes, kernel_size=3, padding=1))
