"""Operators of the model that need one pass over memory each, where PyTorch needs several.

`conv_silu` and `gated_norm` are parts of the VSS block; `layer_norm` and `add_layer_norm` are the
LayerNorms around it. Their definitions, in plain PyTorch, are at the end of this file. Triton
kernels compute the same for float32, bfloat16 and float16 on CUDA devices of compute capability 8.0
and later; everything else uses the definition. Triton is imported at the kernels' first use.
"""

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from vmunet.errors import InputError

__all__ = ["add_layer_norm", "conv_silu", "gated_norm", "layer_norm"]

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_HAS_TRITON = find_spec("triton") is not None


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise 3x3 convolution, zero-padded by 1, with bias, then SiLU (paper, Figure 3).

    VMamba's SS2D does it as `act(conv2d(x))` between two permutations of the channels.

    Args:
        x: (batch, height, width, channels), any values, no axis of size 0. Any strides: a view
            whose last axis is contiguous, such as half of a projection, is not copied.
        weight: (channels, 1, 3, 3), as `nn.Conv2d` with groups=channels holds it.
        bias: (channels,).

    Returns:
        (batch, height, width, channels), contiguous, in the type of x, under autocast too. The
        kernels take parameters of any type with any type of x and sum in float32; the
        definition computes in the type of x (for a float32 x, autocast still decides).

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    d = x.shape[-1:]
    _check("conv_silu", ("x", x), ("weight", weight, (*d, 1, 3, 3)), ("bias", bias, d))
    if _compiled(x, weight, bias):
        from vmunet.fused import triton

        return triton.conv_silu(x, weight, bias)
    return _conv_silu(x, weight, bias)


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the channels of y, times SiLU(z): the gate of the VSS block (paper, Figure 3).

    VMamba's SS2D does it as `out_norm(y) * act(z)`.

    Args:
        y: (batch, height, width, channels), any values, no axis of size 0. Copied if its pixels
            do not lie evenly in memory with contiguous channels.
        z: the same shape and rule, so that half of a projection is not copied; any type.
        weight, bias: (channels,).
        eps: added to the variance, positive.

    Returns:
        (batch, height, width, channels), contiguous, in the type of y, under autocast too: there
        a LayerNorm in float32 would give float32, which the Linear after it rounds too. The
        kernels take any mix of types and compute in float32.

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    d = y.shape[-1:]
    _check("gated_norm", ("y", y), ("z", z, y.shape), ("weight", weight, d), ("bias", bias, d))
    if _compiled(y, z, weight, bias):
        from vmunet.fused import triton

        return triton.gated_norm(y, z, weight, bias, eps)
    return _gated_norm(y, z, weight, bias, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the channels of x, in the type that the layer after it computes in.

    Args:
        x: (batch, height, width, channels), any values, no axis of size 0. Copied if its pixels
            do not lie evenly in memory with contiguous channels.
        weight, bias: (channels,).
        eps: added to the variance, positive.

    Returns:
        (batch, height, width, channels), contiguous, in the type of x; under autocast in
        autocast's type, to which a Linear or a convolution would round it. The kernels take any
        mix of types and compute in float32.

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    d = x.shape[-1:]
    _check("layer_norm", ("x", x), ("weight", weight, d), ("bias", bias, d))
    dtype = _type_of_products(x.device.type, x.dtype)
    if _compiled(x, weight, bias):
        from vmunet.fused import triton

        return triton.layer_norm(x, weight, bias, eps, dtype)
    return _layer_norm(x, weight, bias, eps, dtype)


def add_layer_norm(
    x: Tensor, update: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The end of one residual block and the start of the next: a sum, and its `layer_norm`.

    Args:
        x: (batch, height, width, channels), the block's input; memory as for `layer_norm`.
        update: the same shape and rule, what the block adds; any type.
        scale: (batch,), the factor of each image's update (drop path), without a gradient; None
            if it is 1.
        weight, bias, eps: as for `layer_norm`.

    Returns:
        x + scale update in the wider type of the two, and its norm as `layer_norm` gives it; both
        (batch, height, width, channels), contiguous. The norm is that of the rounded sum.

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    d = x.shape[-1:]
    factors = () if scale is None else (("scale", scale, x.shape[:1]),)
    parameters = ("weight", weight, d), ("bias", bias, d)
    _check("add_layer_norm", ("x", x), ("update", update, x.shape), *factors, *parameters)
    dtype = _type_of_products(x.device.type, torch.promote_types(x.dtype, update.dtype))
    if _compiled(x, update, *(tensor for _, tensor, _ in factors), weight, bias):
        from vmunet.fused import triton

        return triton.add_layer_norm(x, update, scale, weight, bias, eps, dtype)
    return _add_layer_norm(x, update, scale, weight, bias, eps, dtype)


def _type_of_products(device: str, dtype: torch.dtype) -> torch.dtype:
    """The type in which a Linear multiplies values of `dtype`: autocast leaves float64 alone."""
    if dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype


def _compiled(*tensors: Tensor) -> bool:
    """Whether the Triton kernels can take these tensors."""
    if not _HAS_TRITON or not tensors[0].is_cuda or torch.version.hip is not None:
        return False
    if any(tensor.dtype not in _TYPES for tensor in tensors):
        return False
    return torch.cuda.get_device_properties(tensors[0].device).major >= 8


def _conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition of `conv_silu`."""
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=x.shape[-1])
    return F.silu(y).permute(0, 2, 3, 1).contiguous().to(x.dtype)


def _gated_norm(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The definition of `gated_norm`."""
    return (F.layer_norm(y, y.shape[-1:], weight, bias, eps) * F.silu(z)).to(y.dtype)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """The definition of `layer_norm`."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps).to(dtype)


def _add_layer_norm(
    x: Tensor,
    update: Tensor,
    scale: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The definition of `add_layer_norm`."""
    total = x + (update if scale is None else update * scale[:, None, None, None])
    return total, _layer_norm(total, weight, bias, eps, dtype)


def _check(
    operator: str, main: tuple[str, Tensor], *others: tuple[str, Tensor, tuple[int, ...]]
) -> None:
    name, image = main
    if image.ndim != 4 or 0 in image.shape:
        raise InputError(
            f"{operator}: {name} has shape {tuple(image.shape)}, "
            "expected (batch, height, width, channels), none 0"
        )
    for other, tensor, shape in others:
        if tuple(tensor.shape) != tuple(shape):
            raise InputError(
                f"{operator}: {other} has shape {tuple(tensor.shape)}, expected {tuple(shape)} "
                f"with {name} {tuple(image.shape)}"
            )
        if tensor.device != image.device:
            raise InputError(
                f"{operator}: {other} is on {tensor.device} but {name} is on {image.device}"
            )
    for other, tensor in (main, *((other, tensor) for other, tensor, _ in others)):
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise InputError(
                f"{operator}: {other} is {tensor.dtype}, expected a floating-point type"
            )
