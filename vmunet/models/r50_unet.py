"""R50 U-Net: a ResNet-50 as the encoder of a U-Net.

Source: a baseline of TransUNet's paper (Chen et al. 2021, arXiv 2102.04306), whose authors have not
published it. It is TransUNet (github.com/Beckschen/TransUNet, Apache-2.0) without the transformer:
the decoder stands right on the ResNet. Written from a description of the layers.

Another R50 U-Net is public in the repository of MT-UNet (Dootmaan/MT-UNet, branch
full_experiment). It has no skip connection at all; this one has TransUNet's three, as a U-Net does.
"""

from torch import Tensor

from vmunet.architecture import Model
from vmunet.models.parts.cup import Cup, segmentation_head
from vmunet.models.parts.resnet_v2 import STRIDE, ResNetV2


class R50UNet(Model):
    """A ResNet-50 up to 1/16, and a decoder with three skip connections.

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
    """

    title = "R50 U-Net"
    stride = STRIDE

    def __init__(self, in_channels: int = 3, num_classes: int = 9, width: float = 1.0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        self.hybrid_model = ResNetV2(in_channels, width)
        resnet = self.hybrid_model
        self.decoder = Cup(resnet.channels, resnet.skip_channels, width)
        self.segmentation_head = segmentation_head(self.decoder.out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)`; height and width are multiples of 16."""
        features, skips = self.hybrid_model(self.check(images))
        return self.segmentation_head(self.decoder(features, skips))
