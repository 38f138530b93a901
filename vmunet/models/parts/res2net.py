"""Res2Net-50 v1b 26w4s: a ResNet whose 3x3 convolutions work on four parts of the channels in turn.

S.-H. Gao et al.: Res2Net: A New Multi-scale Backbone Architecture. 2019. Written from a description
of the layers; the names are those of its published ImageNet weights. Without the classifier.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import scaled

EXPANSION = 4  # a unit's outputs for each of its `planes`
SCALES = 4  # parts of the channels
UNITS = (3, 4, 6, 3)  # of each layer


class Res2Unit(nn.Module):
    """1x1 convolution, three 3x3 convolutions on parts, 1x1 convolution, and a shortcut.

    In most units each part is added to what the convolution before gave. In the first unit of a
    layer nothing is added, and that unit carries the stride.

    Args:
        inputs: channels of the input.
        planes: the outputs have 4 times as many channels.
        part: channels of each part.
        stride: of the 3x3 convolutions.
        first: whether it is the first unit of a layer.
    """

    def __init__(self, inputs: int, planes: int, part: int, stride: int, first: bool) -> None:
        super().__init__()
        self.stride, self.first = stride, first
        outputs = EXPANSION * planes
        self.conv1 = nn.Conv2d(inputs, SCALES * part, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(SCALES * part)
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, kernel_size=3, stride=stride, padding=1, bias=False)
            for _ in range(SCALES - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(part) for _ in range(SCALES - 1))
        self.conv3 = nn.Conv2d(SCALES * part, outputs, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = self.bn1(self.conv1(x)).relu().chunk(SCALES, dim=1)
        done: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            part = part if self.first or not done else part + done[-1]
            done.append(norm(conv(part)).relu())
        if self.first:
            last = F.avg_pool2d(last, 3, self.stride, padding=1)
        y = self.bn3(self.conv3(torch.cat([*done, last], dim=1)))
        return (y + self.downsample(x)).relu()


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Averages of `stride` x `stride` pixels, 1x1 convolution, batch normalisation."""
    return nn.Sequential(
        nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(inputs, outputs, kernel_size=1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Res2Net50(nn.Module):
    """Images to four maps, at 1/4, 1/8, 1/16 and 1/32 of their size.

    Attributes:
        channels: of the four maps.
    """

    def __init__(self, in_channels: int, width: float) -> None:
        super().__init__()
        stem, planes, part = scaled(32, width), scaled(64, width), scaled(26, width)
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, stem, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem, stem, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem, planes, kernel_size=3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(planes)
        self.channels = [EXPANSION * planes * 2**layer for layer in range(len(UNITS))]
        inputs = planes
        for layer, units in enumerate(UNITS):
            sizes = (planes * 2**layer, part * 2**layer)
            first = Res2Unit(inputs, *sizes, stride=2 if layer else 1, first=True)
            inputs = self.channels[layer]
            others = [Res2Unit(inputs, *sizes, stride=1, first=False) for _ in range(1, units)]
            self.add_module(f"layer{layer + 1}", nn.Sequential(first, *others))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, stride=2, padding=1)
        maps = []
        for layer in range(len(UNITS)):
            x = self.get_submodule(f"layer{layer + 1}")(x)
            maps.append(x)
        return maps
