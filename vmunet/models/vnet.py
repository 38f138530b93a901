"""V-Net: a U-Net for volumes, with 5x5x5 convolutions and residual stages.

Milletari, Navab, Ahmadi, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
Segmentation", 3DV 2016 (arXiv 1606.04797); repository faustomilletari/VNet, GPL-3.0. Written from a
description of its layers.

Two versions can be built:

- The authors' published network, the default, which differs from the paper's figure. 61,982,682
  parameters for 2 classes, no norm, no dropout.
- The widely used port to PyTorch (mattmacy/vnet.pytorch, BSD-3-Clause), by `**PORT`: batch norm
  after every convolution, with the batch's own statistics also in evaluation; a PReLU also after a
  stage's last convolution; fewer convolutions in two stages. 45,603,934 parameters. The port's
  dropout is left out.

Volumes are `(batch, channels, depth, height, width)`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vmunet.architecture import Model, scaled
from vmunet.errors import InputError
from vmunet.models.parts.kaiming import kaiming_normal

CHANNELS = (16, 32, 64, 128, 256)  # of the encoder's stages
PORT: dict[str, Any] = {
    "convs_down": (1, 2, 3, 2),
    "convs_up": (2, 2, 1, 1),
    "batch_norm": True,
    "batch_statistics": True,
    "activate_last": True,
}


class BatchStatistics(nn.BatchNorm3d):
    """Batch norm that always takes the batch's statistics: it never leaves the training mode."""

    def train(self, mode: bool = True) -> "BatchStatistics":
        return super().train(True)


class Layers:
    """Makes the layers of one version.

    Args:
        batch_norm: batch norm after every convolution.
        batch_statistics: it takes the batch's statistics in evaluation too.
        activate_last: PReLU also after the last convolution of a stage, before the sum.
    """

    def __init__(self, batch_norm: bool, batch_statistics: bool, activate_last: bool) -> None:
        self.norm = BatchStatistics if batch_statistics else nn.BatchNorm3d
        self.batch_norm = batch_norm
        self.activate_last = activate_last

    def unit(self, conv: nn.Module, dim: int, activate: bool = True) -> nn.Sequential:
        """A convolution to `dim` channels, perhaps normalised, and PReLU."""
        layers = nn.Sequential()
        layers.conv = conv
        if self.batch_norm:
            layers.norm = self.norm(dim)
        if activate:
            layers.act = nn.PReLU(dim)
        return layers

    def convs(self, dim: int, count: int) -> nn.Sequential:
        """`count` convolutions 5x5x5."""
        units = [
            self.unit(conv5(dim, dim), dim, activate=i < count - 1 or self.activate_last)
            for i in range(count)
        ]
        return nn.Sequential(*units)


def conv5(channels: int, dim: int) -> nn.Conv3d:
    return nn.Conv3d(channels, dim, 5, padding=2)


class First(nn.Module):
    """The first stage: a convolution, and the volume itself, its channels repeated, as shortcut."""

    def __init__(self, layers: Layers, in_channels: int, dim: int) -> None:
        super().__init__()
        self.convs = layers.unit(conv5(in_channels, dim), dim, activate=False)
        self.act = nn.PReLU(dim)
        self.dim = dim

    def forward(self, volumes: Tensor) -> Tensor:
        copies = -(-self.dim // volumes.shape[1])
        shortcut = torch.cat([volumes] * copies, dim=1)[:, : self.dim]
        return self.act(self.convs(volumes) + shortcut)


class Down(nn.Module):
    """Halve the resolution, then a residual stage: `(b, c, d, h, w) -> (b, dim, d/2, h/2, w/2)`."""

    def __init__(self, layers: Layers, channels: int, dim: int, count: int) -> None:
        super().__init__()
        self.down = layers.unit(nn.Conv3d(channels, dim, 2, stride=2), dim)
        self.convs = layers.convs(dim, count)
        self.act = nn.PReLU(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.act(self.convs(x) + x)


class Up(nn.Module):
    """Double the resolution, join the skip connection, then a residual stage.

    `(b, c, d, h, w)` and the skip connection `(b, dim, 2d, 2h, 2w)` to `(b, 2 dim, 2d, 2h, 2w)`.
    """

    def __init__(self, layers: Layers, channels: int, dim: int, count: int) -> None:
        super().__init__()
        self.up = layers.unit(nn.ConvTranspose3d(channels, dim, 2, stride=2), dim)
        self.convs = layers.convs(2 * dim, count)
        self.act = nn.PReLU(2 * dim)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([self.up(x), skip], dim=1)
        return self.act(self.convs(x) + x)


class VNet(Model):
    """V-Net.

    Args:
        in_channels: channels of the volumes.
        num_classes: channels of the logits, the background among them.
        width: factor on the channels of every layer.
        convs_down: convolutions of the stages below the first one, highest resolution first.
        convs_up: convolutions of the decoder's stages, lowest resolution first.
        batch_norm, batch_statistics, activate_last: see `Layers`.
    """

    title = "V-Net"
    stride = 16
    dimensions = 3
    min_classes = 2

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        width: float = 1.0,
        convs_down: Sequence[int] = (1, 2, 3, 3),
        convs_up: Sequence[int] = (3, 2, 1, 1),
        batch_norm: bool = False,
        batch_statistics: bool = False,
        activate_last: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "convs_down": list(convs_down),
            "convs_up": list(convs_up),
            "batch_norm": batch_norm,
            "batch_statistics": batch_statistics,
            "activate_last": activate_last,
        }
        layers = Layers(batch_norm, batch_statistics, activate_last)
        dims = [scaled(channels, width) for channels in CHANNELS]
        self.first = First(layers, in_channels, dims[0])
        self.down = nn.ModuleList(
            Down(layers, channels, dim, count)
            for channels, dim, count in zip(dims[:-1], dims[1:], convs_down, strict=True)
        )
        below = [dims[4], *(2 * dim for dim in dims[3:0:-1])]  # channels that each stage gets
        self.up = nn.ModuleList(
            Up(layers, channels, dim, count)
            for channels, dim, count in zip(below, dims[3::-1], convs_up, strict=True)
        )
        self.last = layers.unit(conv5(2 * dims[0], num_classes), num_classes)
        self.head = nn.Conv3d(num_classes, num_classes, 1)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 5:
                kaiming_normal(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def check(self, images: Tensor) -> Tensor:
        checked = super().check(images)
        if checked.shape[1] != images.shape[1]:  # unlike an image, a volume is never repeated
            raise InputError(
                f"{self.title} was made for {self.in_channels} channels, the volumes have "
                f"{images.shape[1]}"
            )
        return checked

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, depth, height, width)`; sides divisible by 16."""
        x = self.first(self.check(images))
        skips = []
        for stage in self.down:
            skips.append(x)
            x = stage(x)
        for stage in self.up:
            x = stage(x, skips.pop())
        return self.head(self.last(x))
