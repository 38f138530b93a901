"""UNet++: a U-Net whose skips pass through a triangle of further double convolutions.

Z. Zhou, M. M. R. Siddiquee, N. Tajbakhsh, J. Liang: UNet++: A Nested U-Net Architecture for Medical
Image Segmentation. 2018. Written from a description of the layers of 4uiiurz1/pytorch-nested-unet
(MIT), the code that has the 9.16 M parameters of the ISIC tables. The authors' own Keras code is
another network: transposed convolutions, no batch normalisation, dropout.

Deep supervision trains a head on each node of the full resolution, with the same weight. It is on
here, as in the paper; that code has it off by default.

    (l, j)  a node: level l has 1/2^l of the resolution, j counts from the encoder, l + j <= 4
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import SeveralHeads, scaled
from vmunet.models.parts.conv import DoubleConv
from vmunet.models.parts.resize import double

LEVELS = 5


class UNetPlusPlus(SeveralHeads):
    """Nodes `conv0_0` to `conv4_0` go down, the others fill the triangle; heads on level 0.

    Args:
        in_channels: channels of the images.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
        deep_supervision: whether the nodes (0, 1) to (0, 3) have heads as well as (0, 4).
    """

    title = "UNet++"
    stride = 2 ** (LEVELS - 1)

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        width: float = 1.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "deep_supervision": deep_supervision,
        }
        self.in_channels = in_channels
        first = scaled(32, width)
        channels = [first * 2**level for level in range(LEVELS)]
        for level, j in nodes():
            if j:
                inputs = channels[level] * j + channels[level + 1]
            else:
                inputs = channels[level - 1] if level else in_channels
            self.add_module(f"conv{level}_{j}", DoubleConv(inputs, channels[level]))
        # name of a head: its node (0, j)
        self.supervised = {f"final{j}": j for j in range(1, LEVELS)}
        if not deep_supervision:
            self.supervised = {"final": LEVELS - 1}
        for name in self.supervised:
            self.add_module(name, nn.Conv2d(first, num_classes, kernel_size=1))
        self.heads = {name: 1 / len(self.supervised) for name in self.supervised}
        self.prediction = list(self.supervised)[-1]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The logits of every head, `(batch, num_classes, height, width)` each."""
        images = self.check(images)
        maps: dict[tuple[int, int], Tensor] = {}
        for level, j in nodes():
            if j:
                same_level = [maps[level, earlier] for earlier in range(j)]
                x = torch.cat([*same_level, double(maps[level + 1, j - 1])], dim=1)
            else:
                x = F.max_pool2d(maps[level - 1, 0], 2) if level else images
            maps[level, j] = self.get_submodule(f"conv{level}_{j}")(x)
        return {name: self.get_submodule(name)(maps[0, j]) for name, j in self.supervised.items()}


def nodes() -> Iterator[tuple[int, int]]:
    """(level, j) of every node, each after those that it reads."""
    for j in range(LEVELS):
        for level in range(LEVELS - j):
            yield level, j
