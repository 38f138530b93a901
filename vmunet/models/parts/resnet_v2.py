"""ResNet-50 up to 1/16 of the image's size, with standardised weights and group normalisation.

It is the stem of TransUNet (Chen et al. 2021) and of the models derived from it. The name is
ResNetV2, as its weights for ImageNet are called, but ReLU stands after the sum as in the first
ResNet. The max pooling is not padded, so the first stage works on maps one row and one column
smaller than a quarter of the image; only its copy for the skip connection is padded to the quarter.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import by, scaled
from vmunet.errors import InputError

STRIDE = 16
SMALLEST = 32  # the last stage has one pixel at 16, and its norms would leave nothing of it
UNITS = (3, 4, 9)
GROUPS = 32


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 each."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return self._conv_forward(x, weight, self.bias)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> StandardisedConv2d:
    return StandardisedConv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def norm(channels: int) -> nn.GroupNorm:
    """Normalisation in 32 groups, or in as many as narrow models allow."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels, eps=1e-6)


class Bottleneck(nn.Module):
    """A residual unit of 1x1, 3x3 and 1x1 convolutions: `(b, c, h, w) -> (b, c', h/s, w/s)`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1, self.gn1 = conv(inputs, middle, 1), norm(middle)
        self.conv2, self.gn2 = conv(middle, middle, 3, stride), norm(middle)
        self.conv3, self.gn3 = conv(middle, outputs, 1), norm(outputs)
        self.projects = inputs != outputs
        if self.projects:
            self.downsample = conv(inputs, outputs, 1, stride)
            self.gn_proj = nn.GroupNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.gn_proj(self.downsample(x)) if self.projects else x
        x = self.gn1(self.conv1(x)).relu()
        x = self.gn2(self.conv2(x)).relu()
        x = self.gn3(self.conv3(x))
        return (shortcut + x).relu()


def stage(inputs: int, outputs: int, units: int, stride: int) -> nn.Sequential:
    """Bottlenecks, the first of which changes the channels and the size."""
    first = Bottleneck(inputs, outputs, stride)
    others = [Bottleneck(outputs, outputs, stride=1) for _ in range(units - 1)]
    return nn.Sequential(OrderedDict((f"unit{i}", u) for i, u in enumerate([first, *others], 1)))


class ResNetV2(nn.Module):
    """Images to features at 1/16 and skips at 1/8, 1/4 and 1/2 of their size.

    Attributes:
        channels: of the features.
        skip_channels: of the skips, lowest resolution first.
    """

    def __init__(self, in_channels: int, width: float) -> None:
        super().__init__()
        base = scaled(64, width, multiple=4)
        self.channels, self.skip_channels = 16 * base, [8 * base, 4 * base, base]
        layers = {"conv": conv(in_channels, base, 7, stride=2), "gn": norm(base), "relu": nn.ReLU()}
        self.root = nn.Sequential(OrderedDict(layers))
        stages = {
            "block1": stage(base, 4 * base, UNITS[0], stride=1),
            "block2": stage(4 * base, 8 * base, UNITS[1], stride=2),
            "block3": stage(8 * base, 16 * base, UNITS[2], stride=2),
        }
        self.body = nn.ModuleDict(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features, and the skips with the lowest resolution first.

        Args:
            images: `(b, c, h, w)`; h and w divisible by 16.

        Raises:
            InputError: h or w is below 32.
        """
        if min(images.shape[2:]) < SMALLEST:
            raise InputError(
                f"the ResNet takes sizes from {SMALLEST} on, not {by(images.shape[2:])}: resize or "
                "pad the images"
            )
        half = self.root(images)
        quarter = self.body["block1"](F.max_pool2d(half, kernel_size=3, stride=2))
        eighth = self.body["block2"](quarter)
        # The pooling makes h/4 - 1 rows of h/2, and so for the columns.
        return self.body["block3"](eighth), [eighth, F.pad(quarter, (0, 1, 0, 1)), half]
