"""TransUNet: a ResNet-50, a vision transformer on its features, and a decoder with skips.

Source: Chen et al. 2021, "TransUNet: Transformers Make Strong Encoders for Medical Image
Segmentation" (arXiv 2102.04306), github.com/Beckschen/TransUNet (Apache-2.0), its configuration
R50-ViT-B_16 with three skips. Written from a description of its layers.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from vmunet.architecture import Model, sides
from vmunet.models.parts.cup import Cup, segmentation_head
from vmunet.models.parts.resnet_v2 import STRIDE
from vmunet.models.parts.vit import DEPTH, Attention, Encoder, HybridEmbedding, as_map


class Transformer(nn.Module):
    """Images to a feature map at 1/16 and the ResNet's skips."""

    def __init__(self, in_channels: int, width: float, size: Sequence[int]) -> None:
        super().__init__()
        self.embeddings = HybridEmbedding(in_channels, width, size)
        dim = self.embeddings.dim
        self.encoder = Encoder(dim, (Attention(dim) for _ in range(DEPTH)))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens, skips = self.embeddings.embed(images)
        return as_map(self.encoder(tokens), self.embeddings.grid), skips


class TransUNet(Model):
    """ResNet-50, ViT-B with one token for 16x16 pixels, and the cascaded upsampler.

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
        size: height and width of the images, multiples of 16; one number is a square.
    """

    title = "TransUnet"
    stride = STRIDE
    sized = True

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 9,
        width: float = 1.0,
        size: int | Sequence[int] = 224,
    ) -> None:
        super().__init__()
        self.in_channels, self.size = in_channels, sides(size)
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "size": list(self.size),
        }
        self.transformer = Transformer(in_channels, width, self.size)
        embeddings = self.transformer.embeddings
        skip_channels = embeddings.hybrid_model.skip_channels
        self.decoder = Cup(embeddings.dim, skip_channels, width)
        self.segmentation_head = segmentation_head(self.decoder.out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` for images of the size it was built for."""
        features, skips = self.transformer(self.check(images))
        return self.segmentation_head(self.decoder(features, skips))
