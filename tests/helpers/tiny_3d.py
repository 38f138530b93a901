"""A small model of three dimensions, in place of V-Net."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmunet.architecture import Model

NAME = "tiny-3d"
PLACE = ("tests.helpers.tiny_3d", "Tiny3D")  # for `vmunet.models.places.PLACES`


class Tiny3D(Model):
    """Fine and coarse features of volumes; with dropout, so that training draws numbers too."""

    title = "Tiny 3D"
    stride = 16
    dimensions = 3
    min_classes = 2
    channels: ClassVar[int] = 4

    def __init__(self, num_classes: int = 3, in_channels: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.config = {"num_classes": num_classes, "in_channels": in_channels, "width": width}
        self.in_channels = in_channels
        self.fine = nn.Conv3d(in_channels, self.channels, 3, padding=1)
        self.coarse = nn.Conv3d(in_channels, self.channels, 1)
        self.drop = nn.Dropout3d(0.2)
        self.head = nn.Conv3d(2 * self.channels, num_classes, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        volumes = self.check(volumes)
        coarse = self.coarse(F.avg_pool3d(volumes, self.stride))
        coarse = F.interpolate(coarse, size=volumes.shape[2:])
        return self.head(self.drop(torch.cat([self.fine(volumes), coarse], dim=1).relu()))


def made(seed: int = 0, num_classes: int = 3) -> Tiny3D:
    """A model in eval mode whose labels vary over a volume."""
    torch.manual_seed(seed)
    model = Tiny3D(num_classes).eval()
    with torch.no_grad():
        noise = torch.rand(1, 1, 16, 32, 32)
        model.head.bias -= model(noise).mean((0, 2, 3, 4))  # no label is the likeliest everywhere
        model.head.weight *= 5
        model.head.bias *= 5
    return model
