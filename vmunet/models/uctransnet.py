"""UCTransNet: a U-Net whose skips are transformed by attention between the channels of all scales.

Source: Wang et al. 2022, "UCTransNet: Rethinking the Skip Connections in U-Net from a Channel-Wise
Perspective with Transformer" (arXiv 2109.04335), github.com/McGregorWwww/UCTransNet (no licence).
Written from a description of its layers.

    n    tokens: one for 16x16 pixels, the same number at every scale
    c    channels of a scale: 64, 128, 256 or 512
    C    channels of all scales together: 960

The published code ends in a sigmoid if there is one class; this model gives logits always.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, scaled, sides
from vmunet.models.parts.vit import EPS, MLP, PatchEmbedding, as_map

CHANNELS = (64, 128, 256, 512)
PATCHES = (16, 8, 4, 2)  # pixels of each scale that make a token
HEADS, LAYERS = 4, 4
DROPOUT = 0.1
STRIDE = 16


class ConvNormReLU(nn.Module):
    """A convolution that keeps the size, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


def two_convs(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormReLU(inputs, outputs), ConvNormReLU(outputs, outputs))


def norms(channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.LayerNorm(c, EPS) for c in channels)


def each(layers: nn.ModuleList, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What the layer of each scale makes of its input."""
    return [layer(x) for layer, x in zip(layers, inputs, strict=True)]


class Heads(nn.ModuleList):
    """A projection for each head, which sees all channels: `(b, n, c) -> (b, heads, n, c)`."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Linear(channels, channels, bias=False) for _ in range(HEADS))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([head(x) for head in self], dim=1)


class ChannelAttention(nn.Module):
    """Each scale's channels attend to the channels of all scales: `(b, n, c) -> (b, n, c)` each.

    The heads' results are averaged.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.query = nn.ModuleList(map(Heads, channels))
        self.key, self.value = Heads(sum(channels)), Heads(sum(channels))
        self.out = nn.ModuleList(nn.Linear(c, c, bias=False) for c in channels)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, scales: Sequence[Tensor], together: Tensor) -> list[Tensor]:
        key, value = self.key(together), self.value(together)  # (b, heads, n, C)
        mixed = []
        for query in each(self.query, scales):
            scores = query.transpose(2, 3) @ key / math.sqrt(key.shape[-1])  # (b, heads, c, C)
            weights = self.dropout(F.instance_norm(scores).softmax(dim=-1))
            mixed.append((value @ weights.transpose(2, 3)).mean(dim=1))  # (b, n, c)
        return [self.dropout(x) for x in each(self.out, mixed)]


class Layer(nn.Module):
    """Channel attention and an MLP for each scale, each added to the tokens."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.attention_norms, self.joint_norm = norms(channels), nn.LayerNorm(sum(channels), EPS)
        self.attention = ChannelAttention(channels)
        self.mlp_norms = norms(channels)
        self.mlps = nn.ModuleList(map(MLP, channels))

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        together = self.joint_norm(torch.cat(list(scales), dim=-1))
        attended = self.attention(each(self.attention_norms, scales), together)
        scales = [x + y for x, y in zip(scales, attended, strict=True)]
        expanded = each(self.mlps, each(self.mlp_norms, scales))
        return [x + y for x, y in zip(scales, expanded, strict=True)]


class ChannelTransformer(nn.Module):
    """The encoder's maps of all scales to maps of the same shapes, which serve as skips."""

    def __init__(self, channels: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__()
        self.grid = grid
        self.embeddings = nn.ModuleList(
            PatchEmbedding(c, c, patch, grid) for c, patch in zip(channels, PATCHES, strict=True)
        )
        self.layers = nn.ModuleList(Layer(channels) for _ in range(LAYERS))
        self.norms = norms(channels)
        self.reconstructions = nn.ModuleList(ConvNormReLU(c, c, kernel=1) for c in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        scales = each(self.embeddings, maps)
        for layer in self.layers:
            scales = layer(scales)
        small = [as_map(x, self.grid) for x in each(self.norms, scales)]
        large = [F.interpolate(x, scale_factor=p) for x, p in zip(small, PATCHES, strict=True)]
        return [x + y for x, y in zip(maps, each(self.reconstructions, large), strict=True)]


class UpBlock(nn.Module):
    """Upsampling and a skip, whose channels both of them weigh: `(b, c, h, w) -> (b, c', 2h, 2w)`.

    Both have `channels` channels.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.of_skip = nn.Linear(channels, channels)
        self.of_x = nn.Linear(channels, channels)
        self.convs = two_convs(2 * channels, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2)
        gate = (self.of_skip(skip.mean(dim=(2, 3))) + self.of_x(x.mean(dim=(2, 3)))) / 2
        skip = (skip * gate.sigmoid()[:, :, None, None]).relu()
        return self.convs(torch.cat([skip, x], dim=1))


class UCTransNet(Model):
    """A U-Net with a channel-wise transformer in its skips.

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer.
        size: height and width of the images, multiples of 16; one number is a square.
    """

    title = "UCTransNet"
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
        channels = [scaled(c, width) for c in CHANNELS]
        first, last = channels[0], channels[-1]
        self.first = ConvNormReLU(in_channels, first)
        below = [*channels[1:], last]
        self.downs = nn.ModuleList(map(two_convs, channels, below))
        self.transformer = ChannelTransformer(channels, [side // STRIDE for side in self.size])
        above = [first, *channels[:-1]]
        self.ups = nn.ModuleList(map(UpBlock, reversed(channels), reversed(above)))
        self.head = nn.Conv2d(first, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` for images of the size it was built for."""
        x, maps = self.first(self.check(images)), []
        for down in self.downs:
            maps.append(x)
            x = down(F.max_pool2d(x, kernel_size=2))
        for up, skip in zip(self.ups, reversed(self.transformer(maps)), strict=True):
            x = up(x, skip)
        return self.head(x)
