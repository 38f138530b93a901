"""TransNorm: TransUNet whose last attention also weighs the decoder's maps.

Source: Azad et al. 2022, "TransNorm: Transformer Provides a Strong Spatial Normalization Mechanism
for a Deep Segmentation Model" (IEEE Access), github.com/rezazad68/transnorm (no licence of its own;
derived from TransUNet). Written from a description of its layers.

The published code is for skin images and ends in a sigmoid. This model gives the logits before it,
so that it can be trained with any number of classes.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, sides
from vmunet.models.parts.conv import conv_norm_relu
from vmunet.models.parts.cup import (
    block_channels,
    joined,
    segmentation_head,
    upsample,
)
from vmunet.models.parts.resnet_v2 import STRIDE
from vmunet.models.parts.vit import DEPTH, Attention, Block, Encoder, HybridEmbedding, as_map

REDUCTION = 16


class SpatialAttention(Attention):
    """Self-attention that also mixes a second projection of the tokens, the spatial map."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.spatial = nn.Linear(dim, dim)

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The attention's output and the spatial map, `(b, n, d)` each."""
        mixed, spatial = self.attend(x, self.value(x), self.spatial(x))
        return self.out(mixed), spatial


class Transformer(nn.Module):
    """Images to a feature map and a spatial map at 1/16, and the ResNet's skips."""

    def __init__(self, in_channels: int, width: float, size: Sequence[int]) -> None:
        super().__init__()
        self.embeddings = HybridEmbedding(in_channels, width, size)
        attentions = [SpatialAttention(self.embeddings.dim) for _ in range(DEPTH)]
        for attention in attentions[:-1]:
            attention.spatial.requires_grad_(False)  # only the last block's map is ever used
        self.encoder = Encoder(self.embeddings.dim, attentions)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        x, skips = self.embeddings.embed(images)
        *blocks, last = cast(list[Block], list(self.encoder.layer))
        for block in blocks:
            x = block(x)
        attended, spatial = cast(SpatialAttention, last.attn).with_map(last.attention_norm(x))
        x = self.encoder.encoder_norm(last.feed_forward(x + attended))
        return as_map(x, self.embeddings.grid), as_map(spatial, self.embeddings.grid), skips


class ChannelAttention(nn.Module):
    """Weigh the channels by what two layers make of their averages and of their maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(channels // REDUCTION, 1)
        self.fc = nn.Sequential(
            nn.Conv2d(channels, middle, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(middle, channels, kernel_size=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        average, maximum = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        return x * torch.sigmoid(self.fc(average) + self.fc(maximum))


class DecoderBlock(nn.Module):
    """TransUNet's decoder block with attention over channels and pixels."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(inputs + skip, outputs, 3, bias=False)
        self.conv2 = conv_norm_relu(outputs, outputs, 3, bias=False)
        self.convatt = conv_norm_relu(inputs, outputs, 3, bias=False)
        self.chatt = ChannelAttention(inputs + skip)

    def forward(self, x: Tensor, skip: Tensor | None, spatial: Tensor) -> tuple[Tensor, Tensor]:
        """The features and the spatial map, `(b, c, h, w) -> (b, c', 2h, 2w)` each."""
        spatial = self.convatt(upsample(spatial))
        x = self.conv2(self.conv1(self.chatt(joined(x, skip))))
        return x * spatial, spatial


class Decoder(nn.Module):
    """Feature and spatial maps at 1/16 and three skips to a map of the images' size.

    Attributes:
        out_channels: channels of the map.
    """

    def __init__(self, in_channels: int, skip_channels: Sequence[int], width: float) -> None:
        super().__init__()
        channels = block_channels(skip_channels, width)
        self.out_channels = channels[-1][-1]
        self.conv_more = conv_norm_relu(in_channels, channels[0][0], 3, bias=False)
        self.conv_att = conv_norm_relu(in_channels, channels[0][0], 3, bias=False)
        self.blocks = nn.ModuleList(DecoderBlock(*block) for block in channels)

    def forward(self, features: Tensor, spatial: Tensor, skips: Sequence[Tensor]) -> Tensor:
        x, spatial = self.conv_more(features), self.conv_att(spatial)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x, spatial = block(x, skip, spatial)
        return x


class TransNorm(Model):
    """ResNet-50, ViT-B and a decoder with skips, weighed by attention over channels and pixels.

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
        size: height and width of the images, multiples of 16; one number is a square.
    """

    title = "TransNorm"
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
        self.decoder = Decoder(embeddings.dim, skip_channels, width)
        self.segmentation_head = segmentation_head(self.decoder.out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` for images of the size it was built for."""
        features, spatial, skips = self.transformer(self.check(images))
        return self.segmentation_head(self.decoder(features, spatial, skips))
