"""Launch the Triton kernels: layouts, tile sizes, and their operators in torch.

Forward and backward are operators of their own (`torch.ops.vmunet`) with new outputs only, so that
`torch.compile` takes them into its graph as they are. Differentiating twice is refused.
"""

import math
from typing import Any, overload

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
    return _norm(y, z, None, None, weight, bias, eps, y.dtype)[0]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """`vmunet.fused.layer_norm` for float32, bfloat16 and float16; the output is in `dtype`."""
    return _norm(x, None, None, None, weight, bias, eps, dtype)[0]


def add_layer_norm(
    x: Tensor,
    update: Tensor,
    scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`vmunet.fused.add_layer_norm` for the same types; the norm is in `dtype`."""
    normed, total, *_ = _norm(x, None, update, scale, weight, bias, eps, dtype)
    return total, normed


@custom_op("vmunet::norm", mutates_args=())
def _norm(
    y: Tensor,
    gate: Tensor | None,
    update: Tensor | None,
    scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The norm, the total (of size 0 without an update), and each pixel's mean and 1 / deviation.

    There is a gate, or an update, or neither.
    """
    out, total, mean, rstd = _norm_outputs(y, update, dtype)
    size = y.shape[1] * y.shape[2]
    y, gate, update = _pixels(y), _pixels(gate), _pixels(update)
    pixels, d = y.shape
    strides = _strides(y, update if gate is None else gate)
    tile, warps = _norm_tile(d)
    with torch.cuda.device_of(y):
        norm_kernels.norm[(triton.cdiv(pixels, tile["PIXELS"]),)](
            y, gate, update, scale, weight.contiguous(), bias.contiguous(), total, out, mean, rstd,
            pixels, size, d, *strides, eps,
            **_align(d, *strides), **tile, num_warps=warps,
        )  # fmt: skip
    return out, total, mean, rstd


@custom_op("vmunet::norm_backward", mutates_args=())
def _norm_backward(
    gout: Tensor,
    gtotal: Tensor | None,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    y_type: torch.dtype,
    update_type: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of y, gate, update (those that are None have size 0), weight and bias.

    y is what was normed, which is the total if there was an update; gtotal is the total's own
    gradient, None without an update.
    """
    gy, ggate, gupdate = _norm_gradients(gtotal, y, gate, y_type, update_type)
    size = y.shape[1] * y.shape[2]
    gout, gtotal, y, gate = _pixels(gout), _pixels(gtotal), _pixels(y), _pixels(gate)
    pixels, d = y.shape
    tile, warps = _norm_tile(d)
    tiles = triton.cdiv(pixels, tile["PIXELS"])
    programs = _even(tiles, PROGRAMS * 4 // warps)
    partial = y.new_empty((programs, 2, d), dtype=torch.float32)
    strides = _strides(gout, gtotal, y, gate)
    with torch.cuda.device_of(y):
        norm_kernels.norm_backward[(programs,)](
            gout, gtotal, y, gate, scale, weight.contiguous(), bias.contiguous(), mean, rstd,
            gy, ggate, gupdate, partial, tiles, pixels, size, d, *strides,
            **_align(d, *strides), **tile, num_warps=warps,
        )  # fmt: skip
    gweight, gbias = partial.sum(0)
    return gy, ggate, gupdate, gweight.to(weight.dtype, copy=True), gbias.to(bias.dtype, copy=True)


def _norm_outputs(y: Tensor, update: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Memory for what `_norm` returns."""
    out = y.new_empty(y.shape, dtype=dtype)
    if update is None:
        total = y.new_empty(0)
    else:
        total = y.new_empty(y.shape, dtype=torch.promote_types(y.dtype, update.dtype))
    mean, rstd = (y.new_empty(y.shape[:3], dtype=torch.float32) for _ in range(2))
    return out, total, mean, rstd


def _norm_gradients(
    gtotal: Tensor | None,
    y: Tensor,
    gate: Tensor | None,
    y_type: torch.dtype,
    update_type: torch.dtype | None,
) -> tuple[Tensor, ...]:
    """Memory for the images' gradients that `_norm_backward` returns."""
    ggate = y.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    gupdate = y.new_empty(0 if gtotal is None else y.shape, dtype=update_type)
    return y.new_empty(y.shape, dtype=y_type), ggate, gupdate


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


@overload
def _pixels(image: Tensor) -> Tensor: ...
@overload
def _pixels(image: Tensor | None) -> Tensor | None: ...
def _pixels(image: Tensor | None) -> Tensor | None:
    """(b, h, w, d) -> (pixels, d) with contiguous channels; a view if the strides allow it."""
    return None if image is None else _lanes(image.reshape(-1, image.shape[-1]))


def _strides(*images: Tensor | None) -> list[int]:
    """The strides of the images' pixels; 0 for an image that is None."""
    return [0 if image is None else image.stride(0) for image in images]


# ---- What torch must know of the operators: shapes without values, and derivatives ---------------


@conv_silu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_conv_silu_backward.register_fake
def _(gy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


@_norm.register_fake
def _(y: Tensor, gate: Any, update: Any, scale: Any, *others: Any) -> tuple[Tensor, ...]:
    return _norm_outputs(y, update, others[-1])


@_norm_backward.register_fake
def _(gout: Tensor, gtotal: Any, y: Tensor, gate: Any, scale: Any, *others: Any) -> Any:
    weight, bias, _, _, *types = others
    parameters = weight.new_empty(weight.shape), bias.new_empty(bias.shape)
    return *_norm_gradients(gtotal, y, gate, *types), *parameters


def _save_conv(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _conv_gradients(ctx: Any, gy: Tensor) -> tuple[Tensor, ...]:
    return _conv_silu_backward(gy, *ctx.saved_tensors)


def _save_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y, gate, update, scale, weight, bias, *_ = inputs
    _, total, mean, rstd = output
    ctx.types = y.dtype, None if update is None else update.dtype
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # no zeros as gradients of the statistics
    ctx.save_for_backward(y if update is None else total, gate, scale, weight, bias, mean, rstd)


def _differentiate_norm(ctx: Any, gout: Any, gtotal: Any, *_: Any) -> tuple[Tensor | None, ...]:
    y, gate, *others = ctx.saved_tensors
    has_update = ctx.types[1] is not None
    gout = torch.zeros_like(y) if gout is None else gout  # only the total was used
    gtotal = torch.zeros_like(y) if has_update and gtotal is None else gtotal
    gradients = _norm_backward(gout, gtotal if has_update else None, y, gate, *others, *ctx.types)
    gy, ggate, gupdate, gweight, gbias = gradients
    ggate, gupdate = ggate if gate is not None else None, gupdate if has_update else None
    return gy, ggate, gupdate, None, gweight, gbias, None, None


conv_silu.register_autograd(_conv_gradients, setup_context=_save_conv)
_norm.register_autograd(_differentiate_norm, setup_context=_save_norm)
