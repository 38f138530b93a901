"""Launch the Triton kernels: layouts, tile sizes, and their operators in torch.

Forward and backward are operators of their own (`torch.ops.vmunet`) with new outputs only, so that
`torch.compile` takes them into its graph as they are. Differentiating twice is refused.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import custom_op

from vmunet.fused import conv_kernels, norm_kernels

PROGRAMS = 512  # of 4 warps in a backward pass; each sums its part. About four per multiprocessor


@custom_op("vmunet::conv_silu", mutates_args=())
def conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`vmunet.fused.conv_silu` for float32, bfloat16 and float16."""
    return _conv(x, weight, bias, transposed=False)


@custom_op("vmunet::conv_silu_backward", mutates_args=())
def _conv_silu_backward(
    gy: Tensor, x: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias.

    The gradient before the activation is written to memory once, in the type of x: so x's gradient
    is rounded as with separate operators. The parameters' gradients, which are sums over all
    pixels, use it unrounded, in float32.
    """
    gy, x = gy.contiguous(), _lanes(x)
    _, h, w, d = x.shape
    tile = _conv_tile(d)
    groups = triton.cdiv(d, tile["CHANNELS"])
    tiles = _conv_tiles(x.shape, tile)
    programs = _even(tiles, triton.cdiv(PROGRAMS, groups))
    gpre = x.new_empty(x.shape)
    partial = x.new_empty((programs, 10, d), dtype=torch.float32)
    sizes = (h, w, d, *x.stride()[:3])
    with torch.cuda.device_of(x):
        conv_kernels.conv_backward[groups, programs](
            gy, x, weight.contiguous(), bias.contiguous(), gpre, partial, tiles, *sizes,
            **_align(*sizes[2:]), **tile,
            num_warps=4, maxnreg=168,  # of a multiprocessor's 65,536: three programs at a time
        )  # fmt: skip
    total = partial.sum(0)
    gweight = total[:9].T.contiguous().view(weight.shape).to(weight.dtype)
    return _conv(gpre, weight, bias, transposed=True), gweight, total[9].to(bias.dtype, copy=True)


def _conv(x: Tensor, weight: Tensor, bias: Tensor, transposed: bool) -> Tensor:
    x = _lanes(x)
    _, h, w, d = x.shape
    tile = _conv_tile(d)
    tiles = triton.cdiv(d, tile["CHANNELS"]) * _conv_tiles(x.shape, tile)
    y = x.new_empty(x.shape)
    sizes = (h, w, d, *x.stride()[:3])
    with torch.cuda.device_of(x):
        conv_kernels.conv[(tiles,)](
            x, weight.contiguous(), bias.contiguous(), y, *sizes,
            **_align(*sizes[2:]), **tile, TRANSPOSED=transposed,
            num_warps=x.element_size(),  # 16 bytes per thread: 8 channels of 2 bytes, or 4 of 4
        )  # fmt: skip
    return y


def _conv_tile(d: int) -> dict[str, int]:
    """512 values in a row of a tile: 64 channels (128 or 256 bytes per pixel) if x has as many."""
    channels = min(max(triton.next_power_of_2(d), 16), 64)
    return {"ROWS": 8, "PIXELS": 512 // channels, "CHANNELS": channels}


def _conv_tiles(shape: tuple[int, ...], tile: dict[str, int]) -> int:
    """Tiles of one group of channels."""
    b, h, w, _ = shape
    return b * triton.cdiv(h, tile["ROWS"]) * triton.cdiv(w, tile["PIXELS"])


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`vmunet.fused.gated_norm` for float32, bfloat16 and float16."""
    return _gated_norm(y, z, weight, bias, eps)[0]


@custom_op("vmunet::gated_norm", mutates_args=())
def _gated_norm(
    y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the mean and 1 / standard deviation of every pixel."""
    shape, y, z = y.shape, _pixels(y), _pixels(z)
    pixels, d = y.shape
    tile, warps = _norm_tile(d)
    out = y.new_empty(shape)
    mean, rstd = (y.new_empty(shape[:3], dtype=torch.float32) for _ in range(2))
    with torch.cuda.device_of(y):
        norm_kernels.norm[(triton.cdiv(pixels, tile["PIXELS"]),)](
            y, z, weight.contiguous(), bias.contiguous(), out, mean, rstd,
            pixels, d, y.stride(0), z.stride(0), eps,
            **_align(d, y.stride(0), z.stride(0)), **tile, num_warps=warps,
        )  # fmt: skip
    return out, mean, rstd


@custom_op("vmunet::gated_norm_backward", mutates_args=())
def _gated_norm_backward(
    gout: Tensor,
    y: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of y, z, weight and bias."""
    gy, gz = y.new_empty(y.shape), z.new_empty(z.shape)
    gout, y, z = _pixels(gout), _pixels(y), _pixels(z)
    pixels, d = y.shape
    tile, warps = _norm_tile(d)
    tiles = triton.cdiv(pixels, tile["PIXELS"])
    programs = _even(tiles, PROGRAMS * 4 // warps)
    partial = y.new_empty((programs, 2, d), dtype=torch.float32)
    strides = (gout.stride(0), y.stride(0), z.stride(0))
    with torch.cuda.device_of(y):
        norm_kernels.norm_backward[(programs,)](
            gout, y, z, weight.contiguous(), bias.contiguous(), mean, rstd, gy, gz, partial,
            tiles, pixels, d, *strides, **_align(d, *strides), **tile, num_warps=warps,
        )  # fmt: skip
    gweight, gbias = partial.sum(0)
    return gy, gz, gweight.to(weight.dtype, copy=True), gbias.to(bias.dtype, copy=True)


def _norm_tile(d: int) -> tuple[dict[str, int], int]:
    """Whole pixels: 1024 values, or one pixel if it has more; warps for 8 values per thread."""
    channels = triton.next_power_of_2(d)
    pixels = max(1024 // channels, 1)
    return {"PIXELS": pixels, "CHANNELS": channels}, min(pixels * channels // 256, 16)


def _even(tiles: int, programs: int) -> int:
    """The number of programs, at most `programs`, when each takes equally many tiles."""
    return triton.cdiv(tiles, triton.cdiv(tiles, programs))


def _align(*numbers: int) -> dict[str, int]:
    return {"ALIGN": math.gcd(16, *numbers)}


def _lanes(image: Tensor) -> Tensor:
    """The image with contiguous channels; a copy only if they are not contiguous yet."""
    return image if image.stride(-1) == 1 or image.shape[-1] == 1 else image.contiguous()


def _pixels(image: Tensor) -> Tensor:
    """(b, h, w, d) -> (pixels, d) with contiguous channels; a view if the strides allow it."""
    return _lanes(image.reshape(-1, image.shape[-1]))


# ---- What torch must know of the operators: shapes without values, and derivatives ---------------


@conv_silu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_conv_silu_backward.register_fake
def _(gy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


@_gated_norm.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
    statistics = (y.new_empty(y.shape[:3], dtype=torch.float32) for _ in range(2))
    return y.new_empty(y.shape), *statistics


@_gated_norm_backward.register_fake
def _(gout: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, *_: Any) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (y, z, weight, bias))


def _save_conv(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _conv_gradients(ctx: Any, gy: Tensor) -> tuple[Tensor, ...]:
    return _conv_silu_backward(gy, *ctx.saved_tensors)


def _save_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(*inputs[:4], mean, rstd)


def _norm_gradients(ctx: Any, gout: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return *_gated_norm_backward(gout, *ctx.saved_tensors), None


conv_silu.register_autograd(_conv_gradients, setup_context=_save_conv)
_gated_norm.register_autograd(_norm_gradients, setup_context=_save_norm)
