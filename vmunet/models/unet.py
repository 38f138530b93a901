"""U-Net: an encoder and a decoder of double convolutions, joined by skips at every resolution.

O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image
Segmentation. 2015. Written from a description of the layers of several public U-Nets. All of them
differ from the 2015 one: convolutions keep the size, batch normalisation stands before each ReLU.

Two variants, because the paper's tables mean two:

    UNet     32 channels first, 7.77 M parameters and 13.76 G multiply-accumulates at 256 px: the
             figures of the ISIC tables. Nobody published its code. Among the common U-Nets, only
             this one has both figures: convolutions with bias, transposed convolutions followed by
             batch normalisation. Without both it is mateuszbuda/brain-segmentation-pytorch (MIT),
             which puts the upsampled map before the skip.
    UNet34M  64 channels first, 34.5 M parameters: LeeJunHyun/Image_Segmentation (no licence), the
             sibling of the Att-UNet of the same tables. Which U-Net the Synapse row is, nobody
             published.

How `up` doubles the resolution of C channels:

    transposed_norm  transposed convolution to C/2, batch normalisation, ReLU
    transposed       transposed convolution to C/2: milesial/Pytorch-UNet (GPL) without `bias`
    nearest          nearest neighbour, 3x3 convolution to C/2, batch normalisation, ReLU
    bilinear         bilinear, keeps C channels: the U-Net of 4uiiurz1/pytorch-nested-unet (MIT)
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, scaled
from vmunet.errors import InputError
from vmunet.models.parts.conv import DoubleConv, conv_norm_relu

UPS = ("transposed_norm", "transposed", "nearest", "bilinear")


class UNet(Model):
    """The U-Net of the ISIC tables.

    Args:
        in_channels: channels of the images.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
        up: how the decoder doubles the resolution, one of `UPS`.
        bias: whether the 3x3 convolutions before a batch normalisation have a bias.
    """

    title = "UNet"
    stride = 16
    first: ClassVar[int] = 32  # channels at full resolution; they double with each halving

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        width: float = 1.0,
        up: str = "transposed_norm",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if up not in UPS:
            raise InputError(f"UNet: up {up!r} is none of {', '.join(UPS)}")
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "up": up,
            "bias": bias,
        }
        self.in_channels = in_channels
        first = scaled(self.first, width)
        channels = [first * 2**halvings for halvings in range(5)]
        steps = list(pairwise(reversed(channels)))  # of the decoder, from the lowest resolution
        self.encoder = nn.ModuleList(
            DoubleConv(i, o, bias) for i, o in pairwise([in_channels, *channels])
        )
        self.ups = nn.ModuleList(upsampling(up, i, o, bias) for i, o in steps)
        self.decoder = nn.ModuleList(
            DoubleConv((i if up == "bilinear" else o) + o, o, bias) for i, o in steps
        )
        self.head = nn.Conv2d(first, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to logits `(batch, num_classes, height, width)`."""
        x = self.check(images)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for step, (up, stage) in enumerate(zip(self.ups, self.decoder, strict=True)):
            x = stage(self.join(step, skips[-2 - step], up(x)))
        return self.head(x)

    def join(self, step: int, skip: Tensor, x: Tensor) -> Tensor:
        """What the decoder's stage `step` reads: the encoder's map beside the upsampled one."""
        return torch.cat([skip, x], dim=1)


class UNet34M(UNet):
    """The larger U-Net, for the Synapse table."""

    first = 64

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 9,
        width: float = 1.0,
        up: str = "nearest",
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, num_classes, width, up, bias)


def upsampling(up: str, inputs: int, outputs: int, bias: bool) -> nn.Module:
    """One of `UPS`: `(b, inputs, h, w)` to `(b, outputs, 2h, 2w)`, bilinear keeps `inputs`."""
    if up == "bilinear":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    if up == "nearest":
        return nn.Sequential(nn.Upsample(scale_factor=2), *conv_norm_relu(inputs, outputs, 3, bias))
    transposed = nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)
    if up == "transposed":
        return transposed
    return nn.Sequential(transposed, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
