"""TransDeepLab: DeepLabv3+ with Swin Transformer blocks in place of its convolutions.

Azad et al., "TransDeepLab: Convolution-Free Transformer-based DeepLab v3+ for Medical Image
Segmentation", PRIME 2022 (arXiv 2208.00713); repository rezazad68/transdeeplab, without a licence.
Written from a description of its layers; the names of the state dict are the published ones.

The variant is the one whose score the table quotes: spatial pyramid pooling of two levels (the
published configuration `swin_224_7_2level`). The published code is fixed to 224 px; here the
windows follow the size. The description leaves open the drop path rates of the decoder's first two
levels: here they rise as the encoder's do. Linear layers start as in Swin Transformer; the authors
start from its ImageNet weights instead.

Feature maps are channels-last, `(batch, height, width, channels)`.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vmunet.architecture import Model, scaled, sides
from vmunet.model import PatchEmbed, PatchMerging, drop_path_rates, init_linear_layers
from vmunet.models.parts.sizes import legal_size
from vmunet.models.parts.swin import PatchExpand, SwinStage, usual_window

DEPTHS = (2, 2, 6)  # blocks of the encoder's stages
HEADS = (3, 6, 12)  # their attention heads; 3 everywhere else
LAST_DEPTH = 6  # blocks after the low-level features have joined
PATCH = 4
REDUCTION = 12  # of the channels inside the channel attention

Size = Sequence[int]


def covers(window: Size, size: Size) -> bool:
    return all(w >= s for w, s in zip(window, size, strict=True))


class Encoder(nn.Module):
    """Three Swin stages: the low-level features, at 1/4, and the high-level ones, at 1/16."""

    def __init__(
        self, in_channels: int, C: int, maps: Sequence[Size], window: Size, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, C)
        self.low_level_norm = nn.LayerNorm(C)
        rates = list(drop_path_rates(DEPTHS, drop_path_rate))
        merges = [PatchMerging(C), PatchMerging(2 * C), None]
        self.layers = nn.ModuleList(
            SwinStage(C * 2**i, HEADS[i], maps[i], window, rates[i], downsample=merges[i])
            for i in range(3)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first, second, third = (cast(SwinStage, stage) for stage in self.layers)
        low = first.blocks(self.patch_embed(images))
        high = third(second(first.resized(low)))
        return self.low_level_norm(low), high


class ChannelAttention(nn.Module):
    """A weight for each channel, from its maximum and its mean over the map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Conv2d(dim, dim // REDUCTION, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(dim // REDUCTION, dim, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        maximum, mean = x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.se(maximum) + self.se(mean))


class SpatialAttention(nn.Module):
    """A weight for each position, from the maximum and the mean of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(pooled))


class CrossContextualAttention(nn.Module):
    """Channel and spatial attention (CBAM) with a shortcut, then fewer channels."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.ca = ChannelAttention(dim)
        self.sa = SpatialAttention()
        self.proj = nn.Linear(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        weighted = x * self.ca(x)
        x = x + weighted * self.sa(weighted)
        return self.proj(x.permute(0, 2, 3, 1))


class SwinPyramidPooling(nn.Module):
    """Swin blocks side by side, each with its own window, in place of dilated convolutions.

    Where a window covers the map, one block does: there is nothing to shift.
    """

    def __init__(
        self, dim: int, out: int, size: Size, windows: Sequence[Size], drop_path: float, drop: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SwinStage(dim, 3, size, window, [drop_path] * (1 if covers(window, size) else 2))
            for window in windows
        )
        self.proj = CrossContextualAttention(len(windows) * dim, out)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.cat([layer(x) for layer in self.layers], dim=-1)
        return self.dropout(torch.relu(self.proj(features)))


class Decoder(nn.Module):
    """Enlarge to 1/4, join the low-level features, enlarge to the images' size."""

    def __init__(
        self, C: int, num_classes: int, maps: Sequence[Size], window: Size, drop_path_rate: float
    ) -> None:
        super().__init__()
        low, middle, high = maps
        rates = list(drop_path_rates((2, 2), drop_path_rate))
        self.layers_up = nn.ModuleList(
            SwinStage(C, 3, size, window, rates[i], upsample=PatchExpand(C, 2, C))
            for i, size in enumerate((high, middle))
        )
        expand = PatchExpand(2 * C, 2, 2 * C)
        self.last_layers_up = nn.ModuleList(
            [SwinStage(2 * C, 3, low, window, [0.0] * LAST_DEPTH, upsample=expand)]
        )
        self.norm_up = nn.LayerNorm(2 * C)
        self.final_up = PatchExpand(2 * C, 2, 2 * C)
        self.output = nn.Conv2d(2 * C, num_classes, 1, bias=False)

    def forward(self, low: Tensor, x: Tensor) -> Tensor:
        for stage in self.layers_up:
            x = stage(x)
        x = self.last_layers_up[0](torch.cat([low, x], dim=-1))
        x = self.final_up(self.norm_up(x))
        return self.output(x.permute(0, 3, 1, 2))


class TransDeepLab(Model):
    """TransDeepLab (paper, section 2).

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; the heads stay.
        size: side of the images, or (height, width).
        window: side of the attention's windows, or (height, width). At every stage they divide the
            feature map or cover it. By default, for each axis, the legal one nearest to 7 by
            ratio: 7 at 224 px, as published, and 8 at 64, 256 or 512 px. The pyramid's second
            level has the whole map as its window, 14 at 224 px.
        drop_path_rate: largest drop path rate.
        drop_rate: probability of dropping a value after the pyramid.
    """

    title = "TransDeepLab"
    stride = 16
    sized = True

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 9,
        width: float = 1.0,
        size: int | Sequence[int] = 224,
        window: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.1,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.size = legal_size(type(self), size)
        maps = [[side // (PATCH * 2**i) for side in self.size] for i in range(3)]
        windows = usual_window(maps) if window is None else list(sides(window))
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "width": width,
            "size": list(self.size),
            "window": windows,
            "drop_path_rate": drop_path_rate,
            "drop_rate": drop_rate,
        }
        C = scaled(96, width, HEADS[0])
        pyramid = (windows, maps[2])
        self.encoder = Encoder(in_channels, C, maps, windows, drop_path_rate)
        self.aspp = SwinPyramidPooling(4 * C, C, maps[2], pyramid, drop_path_rate, drop_rate)
        self.decoder = Decoder(C, num_classes, maps, windows, drop_path_rate)
        init_linear_layers(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` of images of the size it was built for."""
        low, high = self.encoder(self.check(images))
        return self.decoder(low, self.aspp(high))
