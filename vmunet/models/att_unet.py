"""Att-UNet: a U-Net that weights each skip's pixels by what the decoder has found so far.

O. Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas. 2018. Written from a
description of the layers of LeeJunHyun/Image_Segmentation (no licence), which has the 34.88 M
parameters and 66.63 G multiply-accumulates of the tables. The authors' own 3D code
(ozan-oktay/Attention-Gated-Networks, MIT) gates differently: the decoder's map there is one scale
coarser than the skip.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import scaled
from vmunet.models.unet import UNet34M


class AttentionGate(nn.Module):
    """`skip * a` with one weight a in (0, 1) for each pixel, from the skip and the decoder's map.

    Args:
        channels: of both maps.
        inner: channels of the layer between.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.of_skip = conv_norm(channels, inner)
        self.of_decoder = conv_norm(channels, inner)
        self.weight = conv_norm(inner, 1)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return skip * self.weight(F.relu(self.of_decoder(x) + self.of_skip(skip))).sigmoid()


def conv_norm(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and batch normalisation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1), nn.BatchNorm2d(outputs))


class AttUNet(UNet34M):
    """The U-Net of 64 channels with an attention gate at each skip.

    Args:
        in_channels: channels of the images.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
    """

    title = "Att-UNet"

    def __init__(self, in_channels: int = 3, num_classes: int = 1, width: float = 1.0) -> None:
        super().__init__(in_channels, num_classes, width)
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        first, inner = scaled(64, width), scaled(32, width)
        self.gates = nn.ModuleList(
            AttentionGate(first * 2**halvings, inner * 2**halvings) for halvings in (3, 2, 1, 0)
        )

    def join(self, step: int, skip: Tensor, x: Tensor) -> Tensor:
        return super().join(step, self.gates[step](skip, x), x)
