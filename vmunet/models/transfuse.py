"""TransFuse-S: a ResNet-34 and a DeiT side by side, whose features are fused at three resolutions.

Zhang, Liu, Hu, "TransFuse: Fusing Transformers and CNNs for Medical Image Segmentation", MICCAI
2021 (arXiv 2102.08005); repository Rayicer/TransFuse, without a licence. Written from a
description of its layers; the names of the state dict are the published ones.

The smallest variant: DeiT-small cut to 8 layers, and the first three stages of ResNet-34. The
published code is fixed to 192x256 px. The table's model, 26.27 M parameters, has the position
embedding of 256x256, the default here. Any size divisible by 16 can be built.

Glossary:

    g, x  features of the two branches: g of the CNN, x of the transformer, as in the paper
    b     features of the transformer's branch, at 1/16, 1/8 and 1/4 of the images' size
    u     features of the CNN's branch, at the same resolutions
    f     fused features
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import SeveralHeads, scaled, sides
from vmunet.models.parts.deit import DeiT
from vmunet.models.parts.kaiming import kaiming_normal
from vmunet.models.parts.resnet import ResNet34

HEADS = 6  # of the transformer's attention
DEPTH = 8  # transformer layers


class Conv(nn.Module):
    """Convolution that keeps the size, then batch norm and ReLU unless they are switched off."""

    def __init__(
        self, channels: int, dim: int, kernel: int, bn: bool = True, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(dim) if bn else nn.Identity()
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Pre-activation residual block of 1x1, 3x3 and 1x1 convolutions, halved channels inside."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = Conv(channels, dim // 2, 1, bn=False, relu=False)
        self.bn2 = nn.BatchNorm2d(dim // 2)
        self.conv2 = Conv(dim // 2, dim // 2, 3, bn=False, relu=False)
        self.bn3 = nn.BatchNorm2d(dim // 2)
        self.conv3 = Conv(dim // 2, dim, 1, bn=False, relu=False)
        self.skip_layer = Conv(channels, dim, 1, bn=False, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return y + self.skip_layer(x)


class BiFusion(nn.Module):
    """Fuse the CNN's g and the transformer's x (paper, section 2).

    g is weighted by a spatial attention, x by a channel attention with `reduction` times fewer
    channels inside, and their product shows where they agree: `(b, dim, h, w)`.
    """

    def __init__(self, dim_g: int, dim_x: int, reduction: int, dim: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim_x, dim_x // reduction, 1)
        self.fc2 = nn.Conv2d(dim_x // reduction, dim_x, 1)
        self.spatial = Conv(2, 1, 7, relu=False)
        self.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)  # the only one without bias
        self.W_g = Conv(dim_g, dim, 1, relu=False)
        self.W_x = Conv(dim_x, dim, 1, relu=False)
        self.W = Conv(dim, dim, 3)
        self.residual = Bottleneck(dim_g + dim_x + dim, dim)
        self.dropout = nn.Dropout2d(drop)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        product = self.W(self.W_g(g) * self.W_x(x))
        pooled = torch.cat([g.amax(1, keepdim=True), g.mean(1, keepdim=True)], dim=1)
        g = g * torch.sigmoid(self.spatial(pooled))
        mean = x.mean((2, 3), keepdim=True)
        x = x * torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))
        return self.dropout(self.residual(torch.cat([g, x, product], dim=1)))


class DoubleConv(nn.Module):
    """Two 3x3 convolutions and a shortcut by a 1x1 convolution."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            *(nn.Conv2d(channels, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.ReLU(inplace=True)),
            *(nn.Conv2d(dim, dim, 3, padding=1), nn.BatchNorm2d(dim)),
        )
        self.identity = nn.Sequential(nn.Conv2d(channels, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.double_conv(x) + self.identity(x))


class AttentionGate(nn.Module):
    """Weight every pixel of a skip connection by what the upsampled g makes of it."""

    def __init__(self, dim_g: int, dim: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv2d(dim_g, dim, 1), nn.BatchNorm2d(dim))
        self.W_x = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim))
        self.psi = nn.Sequential(nn.Conv2d(dim, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, g: Tensor, skip: Tensor) -> Tensor:
        return skip * self.psi(F.relu(self.W_g(g) + self.W_x(skip)))


class Up(nn.Module):
    """Enlarge by 2, join the gated skip connection if there is one, convolve."""

    def __init__(self, channels: int, dim: int, skip: int = 0) -> None:
        super().__init__()
        self.conv = DoubleConv(channels + skip, dim)
        self.attn_block = AttentionGate(channels, skip) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = enlarge(x, 2)
        if self.attn_block is not None and skip is not None:
            x = torch.cat([self.attn_block(x, skip), x], dim=1)
        return self.conv(x)


def enlarge(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


def head(dim: int, num_classes: int) -> tuple[Conv, Conv]:
    return Conv(dim, dim, 3), Conv(dim, num_classes, 3, bn=False, relu=False)


class TransFuse(SeveralHeads):
    """TransFuse-S (paper, section 2).

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; the attention keeps its 6 heads.
        size: side of the images, or (height, width): the position embedding has one entry for
            each patch of 16x16 px.
        drop_rate: probability of dropping a whole channel of a branch's features; half of it
            after a fusion.
    """

    title = "TransFuse"
    stride = 16
    sized = True
    prediction = "fused"

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        width: float = 1.0,
        size: int | Sequence[int] = 256,
        drop_rate: float = 0.2,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.size = sides(size)
        self.heads = {"fused_coarse": 0.2, "transformer": 0.3, "fused": 0.5}
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "size": list(self.size),
            "drop_rate": drop_rate,
        }
        dim = scaled(384, width, 2 * HEADS)
        self.resnet = ResNet34(in_channels, stages=3, width=width)
        self.transformer = DeiT(in_channels, self.size, dim, DEPTH, HEADS)
        c4, c8, c16 = self.resnet.dims  # channels at 1/4, 1/8 and 1/16
        self.up1 = Up(dim, c8)
        self.up2 = Up(c8, c4)
        self.up_c = BiFusion(c16, dim, 4, c16, drop_rate / 2)
        self.up_c_1_1 = BiFusion(c8, c8, 2, c8, drop_rate / 2)
        self.up_c_1_2 = Up(c16, c8, skip=c8)
        self.up_c_2_1 = BiFusion(c4, c4, 1, c4, drop_rate / 2)
        self.up_c_2_2 = Up(c8, c4, skip=c4)
        self.final_x = nn.Sequential(Conv(c16, c4, 1), *head(c4, num_classes))
        self.final_1 = nn.Sequential(*head(c4, num_classes))
        self.final_2 = nn.Sequential(*head(c4, num_classes))
        self.drop = nn.Dropout2d(drop_rate)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith(("resnet", "transformer")):
                kaiming_normal(module.weight)  # PyTorch's default for the bias stays

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        images = self.check(images)
        u4, u8, u16 = (self.drop(u) for u in self.resnet(images))
        b16 = self.drop(self.transformer(images))
        b8 = self.drop(self.up1(b16))
        b4 = self.drop(self.up2(b8))
        f16 = self.up_c(u16, b16)
        f8 = self.up_c_1_2(f16, self.up_c_1_1(u8, b8))
        f4 = self.up_c_2_2(f8, self.up_c_2_1(u4, b4))
        return {
            "fused_coarse": enlarge(self.final_x(f16), 16),
            "transformer": enlarge(self.final_1(b4), 4),
            "fused": enlarge(self.final_2(f4), 4),
        }
