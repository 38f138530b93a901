"""Small: two convolutions, a group norm, and a transposed convolution.

Nobody et al. 2026, a model for tests. Its repository is
this one.

A glossary that a model card leaves out.
"""

from typing import ClassVar

from torch import Tensor, nn

from vmunet.architecture import Model, scaled

PLACE = ("tests.helpers.small_model", "Small")  # for vmunet.models.places.PLACES


class Small(Model):
    """Maps images to logits of the same size."""

    title = "Small"
    stride = 2

    def __init__(self, in_channels: int = 3, num_classes: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        self.in_channels = in_channels
        channels = scaled(8, width, 4)
        self.down = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, channels)
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.up(self.norm(self.down(self.check(images)))))


class SmallOfVolumes(Model):
    """The same for volumes, without anything in between."""

    title = "Small of volumes"
    dimensions: ClassVar[int] = 3
    min_classes: ClassVar[int] = 2

    def __init__(self, in_channels: int = 1, num_classes: int = 2, width: float = 1.0) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        self.in_channels = in_channels
        self.head = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.check(images))
