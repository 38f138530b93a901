"""VM-UNet: a U-Net built only from visual state-space blocks (paper, section III).

Glossary, with the paper's symbols and the state dict's names:

    C    channels of the first stage: `dims[0]`, 96 in the paper (sec. III-A)
    d    channels of a block's input: C, 2C, 4C, 8C
    D    inner channels of a block, 2d; the scan's channel count
    N    state size per channel: `d_state`, 16
    R    rank of the step size delta, ceil(d / 16)
    K    the four scan directions: row-major, column-major, and both reversed
    A    state matrix, diagonal and negative: -exp(A_logs), (K, D, N)
    B, C input and output matrices of the recurrence, made from the input itself: (.., K, N)
    D    in the recurrence, the skip weight `Ds`, (K, D)

Images are `(batch, channels, height, width)` at the model's edges; inside, feature maps are
channels-last, `(batch, height, width, channels)`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vmunet.architecture import Model, scaled
from vmunet.errors import InputError
from vmunet.fused import add_layer_norm, conv_silu, gated_norm, layer_norm
from vmunet.init import init_step_size, init_uniform_fan_in, s4d_real
from vmunet.scan import ss2d_projected

K = 4
SIZE_MULTIPLE = 32  # patch embedding by 4, then three patch mergings by 2


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm whose output is in the type that the layer after it computes in."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class DropPath(nn.Module):
    """Drop a residual branch for whole samples with probability `rate`, rescaling the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        # (first, last, whole) if x is a part of a batch of `whole` samples: the draws are for all.
        self.part: tuple[int, int, int] | None = None

    def scale(self, x: Tensor) -> Tensor | None:
        """Draw each sample's factor, 0 or 1 / (1 - rate), (batch,); None if it is 1 for all."""
        if self.rate == 0.0 or not self.training:
            return None
        keep = 1.0 - self.rate
        first, _, whole = self.part or (0, len(x), len(x))
        scale = x.new_empty(whole).bernoulli_(keep) / keep
        if self.part:
            scale = scale[min(first, whole - 1) :][: len(x)]  # of an empty part x has one sample
        return scale

    def forward(self, x: Tensor) -> Tensor:
        return scaled_by(self.scale(x), x)


def scaled_by(scale: Tensor | None, x: Tensor) -> Tensor:
    """x, each sample times its factor: a scale of (batch,), or None for 1."""
    return x if scale is None else x * scale.view(-1, *(1,) * (x.ndim - 1))


class SS2D(nn.Module):
    """2D selective scan (paper, section III-B and Algorithm 1): `(b, h, w, d) -> (b, h, w, d)`."""

    def __init__(self, dim: int, d_state: int) -> None:
        super().__init__()
        D, N, R = 2 * dim, d_state, math.ceil(dim / 16)
        self.d_inner, self.d_state, self.dt_rank = D, N, R
        self.in_proj = nn.Linear(dim, 2 * D, bias=False)
        self.conv2d = nn.Conv2d(D, D, kernel_size=3, padding=1, groups=D)
        self.x_proj_weight = nn.Parameter(torch.empty(K, R + 2 * N, D))
        self.dt_projs_weight = nn.Parameter(torch.empty(K, D, R))
        self.dt_projs_bias = nn.Parameter(torch.empty(K, D))
        self.A_logs = nn.Parameter(torch.empty(K * D, N))
        self.Ds = nn.Parameter(torch.ones(K * D))
        self.out_norm = nn.LayerNorm(D)
        self.out_proj = nn.Linear(D, dim, bias=False)
        init_uniform_fan_in(self.x_proj_weight)
        init_step_size(self.dt_projs_weight, self.dt_projs_bias)
        s4d_real(self.A_logs)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        D, N, R = self.d_inner, self.d_state, self.dt_rank
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (b, h, w, D) each
        x = conv_silu(x, self.conv2d.weight, self.conv2d.bias)  # type: ignore[arg-type]

        # One projection for all directions: they read the same pixel, so order does not matter.
        projected = x.reshape(-1, D) @ self.x_proj_weight.view(-1, D).T  # (bhw, K (R + 2N))
        projected = projected.view(b, h, w, K, R + 2 * N)
        step, B, C = projected.split([R, N, N], dim=-1)
        A = -torch.exp(self.A_logs.float()).view(K, D, N)
        Ds, bias = self.Ds.float().view(K, D), self.dt_projs_bias.float()
        y = ss2d_projected(x, step, self.dt_projs_weight, A, B, C, Ds, bias)
        norm = self.out_norm
        return self.out_proj(gated_norm(y, z, norm.weight, norm.bias, norm.eps))


class VSSBlock(nn.Module):
    """`x + DropPath(SS2D(LayerNorm(x)))` (paper, Figure 3), with both its sums left open.

    A block takes its input as three parts, x + scale update, and returns its output so: the next
    block adds them in the operator that norms the sum, and `chain` adds the last ones.
    """

    def __init__(self, dim: int, d_state: int, drop_path: float) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(dim)
        self.self_attention = SS2D(dim, d_state)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, update: Tensor | None = None, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        norm = self.ln_1
        if update is None:
            normed = norm(x)
        else:
            x, normed = add_layer_norm(x, update, scale, norm.weight, norm.bias, norm.eps)
        update = self.self_attention(normed)
        return x, update, self.drop_path.scale(update)


def chain(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The output of VSS blocks, one after the other: `(b, h, w, d) -> (b, h, w, d)`."""
    update = scale = None
    for block in blocks:
        x, update, scale = block(x, update, scale)
    return x if update is None else x + scaled_by(scale, update)


class PatchEmbed(nn.Module):
    """Patches of 4x4 pixels to C channels: `(b, c, h, w) -> (b, h/4, w/4, C)`."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halve the resolution, double the channels: `(b, h, w, d) -> (b, h/2, w/2, 2d)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]  # (0,0), (1,0), (0,1), (1,1)
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class PatchExpand(nn.Module):
    """Enlarge by `scale`, divide the channels by it: `(b, h, w, d) -> (b, sh, sw, d/s)`.

    The expanded channels are ordered (row, column, channel), unlike nn.PixelShuffle's.
    """

    def __init__(self, dim: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale * dim, bias=False)
        self.norm = LayerNorm(dim // scale)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, d = x.shape
        s = self.scale
        x = self.expand(x).view(b, h, w, s, s, d // s).transpose(2, 3)  # (b, h, s, w, s, d/s)
        return self.norm(x.reshape(b, h * s, w * s, d // s))


class EncoderStage(nn.Module):
    """VSS blocks, then patch merging (none after the last stage)."""

    def __init__(self, dim: int, d_state: int, drop_paths: Sequence[float], merge: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(VSSBlock(dim, d_state, rate) for rate in drop_paths)
        self.downsample = PatchMerging(dim) if merge else None

    def forward(self, x: Tensor) -> Tensor:
        x = chain(self.blocks, x)
        return x if self.downsample is None else self.downsample(x)


class DecoderStage(nn.Module):
    """Patch expanding (none before the first stage), then VSS blocks."""

    def __init__(self, dim: int, d_state: int, drop_paths: Sequence[float], expand: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(VSSBlock(dim, d_state, rate) for rate in drop_paths)
        self.upsample = PatchExpand(2 * dim, 2) if expand else None

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample is not None:
            x = self.upsample(x)
        return chain(self.blocks, x)


def drop_path_rates(depths: Sequence[int], rate: float) -> Iterator[list[float]]:
    """Rates per stage, rising linearly from 0 to `rate` over all blocks."""
    last = max(sum(depths) - 1, 1)
    first = 0
    for depth in depths:
        yield [rate * block / last for block in range(first, first + depth)]
        first += depth


class Encoder(nn.Module):
    """Patch embedding and the encoder's stages: the part that VMamba and VM-UNet share."""

    def __init__(
        self,
        in_channels: int,
        depths: Sequence[int],
        dims: Sequence[int],
        d_state: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        last = len(depths) - 1
        self.patch_embed = PatchEmbed(in_channels, dims[0])
        rates = drop_path_rates(depths, drop_path_rate)
        self.layers = nn.ModuleList(
            EncoderStage(dim, d_state, stage_rates, merge=i < last)
            for i, (dim, stage_rates) in enumerate(zip(dims, rates, strict=True))
        )

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last stage's output and every stage's input, `(b, h/4, w/4, C)` first."""
        x = self.patch_embed(images)
        inputs = []
        for stage in self.layers:
            inputs.append(x)
            x = stage(x)
        return x, inputs


class VMUNet(Encoder, Model):
    """Vision Mamba UNet (paper, Figure 1 and section III-A).

    Args:
        in_channels: channels of the images; a 1-channel image is repeated to fill 3.
        num_classes: channels of the logits: 1 for a binary mask, otherwise one for each class.
        depths: VSS blocks of each encoder stage.
        depths_decoder: VSS blocks of each decoder stage, lowest resolution first.
        dims: channels of each encoder stage, doubling; the decoder mirrors them.
        d_state: state size N of the scan.
        drop_path_rate: largest drop path rate, rising over the encoder, falling over the decoder.

    Raises:
        InputError: the arguments do not describe a U-shaped model.
    """

    title = "VM-UNet"
    stride = SIZE_MULTIPLE

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        depths: Sequence[int] = (2, 2, 2, 2),
        depths_decoder: Sequence[int] = (2, 2, 2, 1),
        dims: Sequence[int] = (96, 192, 384, 768),
        d_state: int = 16,
        drop_path_rate: float = 0.2,
    ) -> None:
        self._check(depths, depths_decoder, dims, drop_path_rate)
        super().__init__(in_channels, depths, dims, d_state, drop_path_rate)
        self.config = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "depths": list(depths),
            "depths_decoder": list(depths_decoder),
            "dims": list(dims),
            "d_state": d_state,
            "drop_path_rate": drop_path_rate,
        }
        rising = list(drop_path_rates(list(depths_decoder)[::-1], drop_path_rate))
        falling = [stage_rates[::-1] for stage_rates in reversed(rising)]
        self.layers_up = nn.ModuleList(
            DecoderStage(dim, d_state, stage_rates, expand=i > 0)
            for i, (dim, stage_rates) in enumerate(zip(reversed(dims), falling, strict=True))
        )
        self.final_up = PatchExpand(dims[0], 4)
        self.final_conv = nn.Conv2d(dims[0] // 4, num_classes, kernel_size=1)
        init_linear_layers(self)

    @classmethod
    def arguments(cls, size: int, width: float) -> dict[str, Any]:
        first = scaled(96, width, 4)
        return {"dims": [first * 2**i for i in range(4)]}

    @staticmethod
    def _check(
        depths: Sequence[int], depths_decoder: Sequence[int], dims: Sequence[int], rate: float
    ) -> None:
        if not len(depths) == len(depths_decoder) == len(dims) == 4:
            raise InputError(
                f"VMUNet has 4 stages: depths {list(depths)}, depths_decoder "
                f"{list(depths_decoder)} and dims {list(dims)} must have 4 entries each"
            )
        if any(depth < 1 for depth in (*depths, *depths_decoder)):
            raise InputError("VMUNet: every stage needs at least 1 block")
        # The last norm has C/4 channels; if there were only one, it would erase the image.
        if dims[0] < 8 or dims[0] % 4 or any(b != 2 * a for a, b in pairwise(dims)):
            raise InputError(
                f"VMUNet: dims {list(dims)} must start at a multiple of 4 from 8 on and double"
            )
        if not 0.0 <= rate < 1.0:
            raise InputError(f"VMUNet: drop_path_rate {rate} must be in [0, 1)")

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the size of the images.

        Args:
            images: `(batch, channels, height, width)`; height and width divisible by 32. ISIC
                images are min-max normalised to 0..255 (`vmunet.data.resize.min_max`).

        Returns:
            `(batch, num_classes, height, width)` logits.

        Raises:
            InputError: wrong number of channels, or a size that is not divisible by 32.
        """
        images = self.check(images)
        x, inputs = self.encode(images)
        for i, stage in enumerate(self.layers_up):
            # Skip connections are sums; the deepest stage has none (paper, sec. III-A).
            x = stage(x if i == 0 else x + inputs[-i])
        return self.final_conv(self.final_up(x).permute(0, 3, 1, 2))


def init_linear_layers(model: nn.Module) -> None:
    """Truncated normal 0.02 for every nn.Linear, as in the published code's `_init_weights`."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
