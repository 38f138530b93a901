"""MALUNet: a U-Net of 0.18 M parameters, with attention in its deep stages and its skips.

J. Ruan, S. Xiang, M. Xie, T. Liu, Y. Fu: MALUNet: A Multi-Attention and Light-weight UNet for Skin
Lesion Segmentation. 2022. Code: JCruan519/MALUNet (no licence); written from a description of its
layers. As there, except that the sigmoid is left to the loss. The 0.175 M parameters that the paper
prints leave out the group normalisations.

Glossary, with the paper's names:

    DGA   dilated gated attention: depthwise convolutions of four dilations, then a gate
    IEA   inverted external attention: pixels attend to a memory of 4c learnt slots
    SAB   spatial attention bridge: a gate for each pixel of a skip, one convolution for all skips
    CAB   channel attention bridge: a gate for each channel, made from all skips together
    t, u  a skip before and after the spatial gate
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, scaled
from vmunet.models.parts.resize import double

GROUPS = 4  # of every group normalisation, and the dilations of a DGA
DILATIONS = (7, 5, 2, 1)


class SeparableConv(nn.Sequential):
    """Depthwise convolution, group normalisation, 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs),
            nn.GroupNorm(GROUPS, inputs),
            nn.Conv2d(inputs, outputs, kernel_size=1),
        )


class GatedAttention(nn.Module):
    """`out(gate(x) * value(x)) + shortcut(x)`: `(b, inputs, h, w)` to `(b, outputs, h, w)`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate = SeparableConv(inputs, inputs, 3)
        self.value = SeparableConv(inputs, inputs, 5)
        self.out = SeparableConv(inputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        gated = self.gate(x).sigmoid() * F.gelu(self.value(x))
        return F.gelu(self.out(gated)) + self.shortcut(x)


class DGA(nn.Module):
    """Each quarter of the channels sees another neighbourhood; then a gate."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        quarter = inputs // len(DILATIONS)
        self.dilated = nn.ModuleList(
            nn.Conv2d(quarter, quarter, 3, padding=d, dilation=d, groups=quarter) for d in DILATIONS
        )
        self.norm = nn.GroupNorm(GROUPS, inputs)
        self.conv = nn.Conv2d(inputs, inputs, kernel_size=1)
        self.gated = GatedAttention(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        quarters = x.chunk(len(DILATIONS), dim=1)
        x = torch.cat([conv(q) for conv, q in zip(self.dilated, quarters, strict=True)], dim=1)
        return self.gated(F.gelu(self.conv(self.norm(x))))


class IEA(nn.Module):
    """Attention between the pixels and 4c learnt slots: `(b, c, h, w)` to the same.

    The softmax is over the pixels; each pixel's weights are then divided by their sum over slots.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=1)
        self.keys = nn.Conv1d(channels, 4 * channels, kernel_size=1, bias=False)
        self.values = nn.Conv1d(4 * channels, channels, kernel_size=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.keys(self.conv1(x).flatten(2)).softmax(dim=2)  # (b, 4c, hw)
        attention = attention / (1e-9 + attention.sum(dim=1, keepdim=True))
        attended = self.values(attention).view_as(x)
        return F.gelu(x + self.norm(self.conv2(attended)))


class Bridge(nn.Module):
    """SAB, then CAB: the five skips, gated for each pixel and then for each channel."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(2, 1, kernel_size=7, padding=9, dilation=3)
        self.mix = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)
        self.channel = nn.ModuleList(nn.Linear(sum(channels), c) for c in channels)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        gated = [self.pixel_gate(t) * t for t in skips]  # u
        sums = [u + t for u, t in zip(gated, skips, strict=True)]
        means = torch.cat([v.mean(dim=(2, 3)) for v in sums], dim=1)  # (b, all channels)
        mixed = self.mix(means.unsqueeze(1)).squeeze(1)
        gates = [linear(mixed).sigmoid()[:, :, None, None] for linear in self.channel]
        return [g * v + u for g, v, u in zip(gates, sums, gated, strict=True)]

    def pixel_gate(self, t: Tensor) -> Tensor:
        """`(b, c, h, w)` to `(b, 1, h, w)`."""
        summary = torch.cat([t.mean(1, keepdim=True), t.amax(1, keepdim=True)], dim=1)
        return self.spatial(summary).sigmoid()


class MALUNet(Model):
    """Six stages down, five up, the skips through a bridge.

    Args:
        in_channels: channels of the images.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; each stage's are a multiple of 4.
    """

    title = "MALUNet"
    stride = 32

    def __init__(self, in_channels: int = 3, num_classes: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        self.in_channels = in_channels
        channels = [scaled(c, width, GROUPS) for c in (8, 16, 24, 32, 48, 64)]
        down, up = [in_channels, *channels], channels[::-1]
        self.encoder = nn.ModuleList(
            nn.Conv2d(i, o, kernel_size=3, padding=1)
            if stage < 3
            else nn.Sequential(IEA(i), DGA(i, o))
            for stage, (i, o) in enumerate(pairwise(down))
        )
        self.encoder_norms = nn.ModuleList(nn.GroupNorm(GROUPS, c) for c in channels[:-1])
        self.bridge = Bridge(channels[:-1])
        self.decoder = nn.ModuleList(
            nn.Sequential(DGA(i, o), IEA(o))
            if stage < 3
            else nn.Conv2d(i, o, kernel_size=3, padding=1)
            for stage, (i, o) in enumerate(pairwise(up))
        )
        self.decoder_norms = nn.ModuleList(nn.GroupNorm(GROUPS, c) for c in up[1:])
        self.head = nn.Conv2d(channels[0], num_classes, kernel_size=1)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to logits `(batch, num_classes, height, width)`."""
        x = self.check(images)
        skips = []
        *stages, deepest = self.encoder
        for stage, norm in zip(stages, self.encoder_norms, strict=True):
            x = F.gelu(F.max_pool2d(norm(stage(x)), 2))
            skips.append(x)  # at 1/2, .., 1/32
        x = F.gelu(deepest(x))
        skips = self.bridge(skips)
        for step, (stage, norm) in enumerate(zip(self.decoder, self.decoder_norms, strict=True)):
            x = norm(stage(x))
            x = F.gelu(double(x) if step else x) + skips[-1 - step]  # the first stays at 1/32
        return double(self.head(x))


@torch.no_grad()
def init_weights(model: MALUNet) -> None:
    """The published initialisation: normal for convolutions, truncated normal for linear layers."""
    if model.head.weight.is_meta:  # it has no values, and normal_ would load torch's compiler (2 s)
        return
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, IEA):  # they start as each other's transpose, and train apart
            module.keys.weight.copy_(module.values.weight.transpose(0, 1))
