"""SANet: a Res2Net whose deep maps multiply the shallower ones, to keep small objects.

J. Wei, Y. Hu, R. Zhang, Z. Li, S. K. Zhou, S. Cui: Shallow Attention Network for Polyp
Segmentation. 2021. Code: weijun88/SANet (MIT); written from a description of its layers, with its
names, so that its checkpoints and the backbone's ImageNet weights load. Its colour exchange and
its correction of probabilities belong to the training and the evaluation, not to the model.
"""

import torch
from torch import Tensor, nn

from vmunet.architecture import Model, scaled
from vmunet.models.parts.conv import conv_norm_relu
from vmunet.models.parts.kaiming import kaiming_normal
from vmunet.models.parts.res2net import Res2Net50
from vmunet.models.parts.resize import resize


class SANet(Model):
    """Logits are made at 1/8 of the size and enlarged, as the published evaluation does.

    Args:
        in_channels: channels of the images.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
    """

    title = "SANet"
    stride = 32

    def __init__(self, in_channels: int = 3, num_classes: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        self.in_channels = in_channels
        self.bkbone = Res2Net50(in_channels, width)  # the published name
        common = scaled(64, width)
        _, shallow, middle, deep = self.bkbone.channels
        self.linear5 = conv_norm_relu(deep, common, kernel=1)
        self.linear4 = conv_norm_relu(middle, common, kernel=1)
        self.linear3 = conv_norm_relu(shallow, common, kernel=1)
        self.predict = nn.Conv2d(3 * common, num_classes, kernel_size=1)
        for head in (self.linear5, self.linear4, self.linear3, self.predict):
            kaiming_normal(next(head.parameters()))

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to logits `(batch, num_classes, height, width)`."""
        images = self.check(images)
        return resize(self.coarse(images), images.shape[2:])

    def coarse(self, images: Tensor) -> Tensor:
        """Logits at 1/8 of the images' size."""
        _, shallow, middle, deep = self.bkbone(images)
        f3 = self.linear3(shallow)
        f4 = resize(self.linear4(middle), f3.shape[2:])
        f5 = resize(self.linear5(deep), f3.shape[2:])
        return self.predict(torch.cat([f5, f4 * f5, f3 * f4 * f5], dim=1))
