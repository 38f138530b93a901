"""MEW-UNet: a U-Net that weights the frequencies of its features along every pair of their axes.

Ruan et al., "MEW-UNet: Multi-axis representation learning in frequency domain for medical image
segmentation", 2022 (arXiv 2210.14007); repository JCruan519/MEW-UNet, Apache-2.0. Written from a
description of its layers. The names of the state dict are the published ones, without five integers
that each frequency block of the published code stores.

Oddities of the published code that stay: the real and the imaginary parts of the weights pass
through convolutions as two samples of a batch, and the weights of 16 frequencies are resized to
the feature map's number by bilinear interpolation.

Glossary:

    d  channels of a feature map `(b, d, h, w)`
    c  channels of a quarter of it, d / 4
    f  frequencies along the last axis of a transform, half of its length plus 1
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmunet.architecture import Model, scaled

DIMS = (32, 64, 128, 256, 512)
DEPTHS = (1, 2, 2, 4)
GROUPS = 4  # of every group norm
FREQUENCIES = 16  # of the weights before they are resized


class SeparableConv(nn.Module):
    """Depthwise 3x3 convolution, norm, 1x1 convolution; no activation."""

    def __init__(self, channels: int, dim: int, norm: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm_layer = norm
        self.conv2 = nn.Conv2d(channels, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm_layer(self.conv1(x)))


class InvertedConv(nn.Module):
    """Inverted residual of images or sequences, twice as wide inside.

    Its shortcut is there if the channels agree.
    """

    def __init__(self, channels: int, dim: int, axes: int = 2) -> None:
        super().__init__()
        inner = 2 * channels
        conv = nn.Conv2d if axes == 2 else nn.Conv1d
        depthwise = conv(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.conv = nn.Sequential(
            nn.Sequential(
                conv(channels, inner, 1, bias=False), nn.GroupNorm(GROUPS, inner), nn.GELU()
            ),
            nn.Sequential(depthwise, nn.GroupNorm(GROUPS, inner), nn.GELU()),
            conv(inner, dim, 1, bias=False),
            nn.GroupNorm(GROUPS, dim),
        )
        self.shortcut = channels == dim

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def generator(c: int, axes: int) -> nn.Sequential:
    """The convolutions that make a quarter's weights."""
    widths = ((c, 2 * c), (2 * c, 2 * c), (2 * c, c))
    return nn.Sequential(*(InvertedConv(*pair, axes=axes) for pair in widths))


def resized(weight: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(weight, size=tuple(size), mode="bilinear", align_corners=True)


def weighted(x: Tensor, parts: Tensor, axes: tuple[int, int]) -> Tensor:
    """Weight the spectrum of x over two axes.

    Args:
        parts: real and imaginary part of the weights, `(2, ...)`, each as broadcast to the
            spectrum, which has f entries along the last of the axes.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)  # a transform needs more than 16 bits
    real, imaginary = parts.to(dtype).unbind()
    spectrum = torch.fft.rfft2(x.to(dtype), dim=axes, norm="ortho") * torch.complex(real, imaginary)
    size = [x.shape[axis] for axis in axes]
    return torch.fft.irfft2(spectrum, s=size, dim=axes, norm="ortho").to(x.dtype)


class MEW(nn.Module):
    """Multi-axis external weights (paper, section 3.2): `(b, d, h, w) -> (b, d, h, w)`.

    A quarter of the channels each: weighted frequencies over channels and width, over channels and
    height, over height and width, and a convolution.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        c = dim // 4
        self.a_weight = nn.Parameter(torch.ones(2, 1, c, FREQUENCIES))
        self.b_weight = nn.Parameter(torch.ones(2, 1, c, FREQUENCIES))
        self.c_weight = nn.Parameter(torch.ones(2, c, FREQUENCIES, FREQUENCIES))
        self.dw_conv = InvertedConv(c, c)
        self.wg_a = generator(c, 1)
        self.wg_b = generator(c, 1)
        self.wg_c = generator(c, 2)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2, x3, x4 = x.chunk(4, dim=1)
        c, h, w = x1.shape[1:]
        a = self.wg_a(resized(self.a_weight, (c, w // 2 + 1)).squeeze(1))  # (2, c, f)
        b = self.wg_b(resized(self.b_weight, (c, h // 2 + 1)).squeeze(1))
        both = self.wg_c(resized(self.c_weight, (h, w // 2 + 1)))  # (2, c, h, f)
        x1 = weighted(x1, a[:, :, None, :], (1, 3))
        x2 = weighted(x2, b[:, :, :, None], (1, 2))
        x3 = weighted(x3, both, (2, 3))
        return torch.cat([x1, x2, x3, self.dw_conv(x4)], dim=1)


class MLP(nn.Module):
    """Two inverted convolutions, four times as wide between them, then GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(InvertedConv(dim, 4 * dim), InvertedConv(4 * dim, dim), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Residual(nn.Module):
    """A pre-norm residual branch: `x + fn(norm(x))`."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class Blocks(nn.Module):
    """Blocks of frequency weights and an MLP."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(Residual(dim, MEW(dim)), Residual(dim, MLP(dim))) for _ in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class MEWUNet(Model):
    """MEW-UNet (paper, section 3).

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits.
        width: factor on the channels of every layer; every norm keeps its 4 groups.
    """

    title = "MEW-UNet"
    stride = 32

    def __init__(self, in_channels: int = 3, num_classes: int = 9, width: float = 1.0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.config = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        # In a block a quarter of the channels has four groups; the first level has no block.
        deeper = [scaled(dim, width, 4 * GROUPS) for dim in DIMS[1:]]
        dims = [scaled(DIMS[0], width, GROUPS), *deeper]

        def separable(channels: int, dim: int) -> SeparableConv:
            return SeparableConv(channels, dim, nn.GroupNorm(GROUPS, channels))

        first = SeparableConv(in_channels, dims[0], nn.BatchNorm2d(in_channels))
        self.e0 = nn.Sequential(first)
        self.e1, self.e2, self.e3, self.e4 = (
            nn.Sequential(separable(dims[i - 1], dims[i]), Blocks(dims[i], DEPTHS[i - 1]))
            for i in (1, 2, 3, 4)
        )
        self.d4, self.d3, self.d2, self.d1 = (
            nn.Sequential(Blocks(dims[i], DEPTHS[i - 1]), separable(dims[i], dims[i - 1]))
            for i in (4, 3, 2, 1)
        )
        self.d0 = nn.Sequential(nn.Conv2d(dims[0], num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)`; height and width divisible by 32."""
        x = self.check(images)
        pooled = []
        for encode in (self.e0, self.e1, self.e2, self.e3, self.e4):
            x = F.max_pool2d(encode(x), 2)
            pooled.append(x)
        for decode, skip in zip((self.d4, self.d3, self.d2, self.d1), pooled[-2::-1], strict=True):
            x = enlarged(decode(x)) + skip
        return enlarged(self.d0(x))
