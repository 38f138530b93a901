"""The compiled scans as PyTorch operators: `vmunet::ss2d` and `vmunet::ss2d_backward`.

Autograd and torch.compile treat an operator as one step and do not look inside: a compiled model
has no graph break at the scan. A backend is a module with four functions:

    unavailable(device) -> why the backend cannot run there, or an empty string
    forward(x, dt, A, B, C, D, dt_bias, keep) -> (y, saved)
    backward(gy, x, dt, A, B, C, D, dt_bias, saved) -> seven gradients
    saved_shape(x, A) -> the shape of `saved`, the states kept for `backward`
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MODULES = {
    "cpu": "vmunet.scan.cpu",
    "triton": "vmunet.scan.triton",
    "mamba": "vmunet.scan.mamba",
}

PARTS, MANY_PIXELS = 32, 2**14  # of the gradient of the dt projection's weight; no GPU timed them

_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor dt_bias"
_SEVEN = ", ".join(["Tensor"] * 7)

torch.library.define("vmunet::ss2d", f"({_INPUTS}, str backend, bool keep) -> (Tensor, Tensor)")
torch.library.define(
    "vmunet::ss2d_backward", f"(Tensor gy, {_INPUTS}, Tensor saved, str backend) -> ({_SEVEN})"
)


def scan(backend: str, *inputs: Tensor) -> Tensor:
    """`vmunet.scan.ss2d` by the backend of this name; keeps states only if a gradient is needed."""
    return torch.ops.vmunet.ss2d(*inputs, backend, _gradient_is_due(*inputs))[0]


def scan_projected(
    backend: str, x: Tensor, step: Tensor, weight: Tensor, *others: Tensor
) -> Tensor:
    """`vmunet.scan.ss2d_projected` by the backend of this name."""
    if _gradient_is_due(x, step, weight, *others):
        return _Projected.apply(backend, x, step, weight, *others)
    return torch.ops.vmunet.ss2d(x, project(step, weight), *others, backend, False)[0]


def _gradient_is_due(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)


def project(step: Tensor, weight: Tensor) -> Tensor:
    """dt of `vmunet.scan.ss2d_projected`, (b, h, w, 4, d), in the type of `step`.

    One batched product leaves the directions outermost in memory; a scan reads it by its strides.
    """
    factors = step.flatten(0, 2).transpose(0, 1)  # (4, bhw, r)
    with torch.autocast(step.device.type, enabled=False):  # the backward pass has none
        dt = factors @ weight.to(step.dtype).transpose(1, 2)  # (4, bhw, d)
    return dt.unflatten(1, step.shape[:3]).permute(1, 2, 3, 0, 4)


def weight_gradient(gdt: Tensor, factors: Tensor, parts: int) -> Tensor:
    """The gradient of the projection's weight, gdt^T factors, as `parts` products and their sum.

    A product sums over all pixels of a batch and has few columns, the rank: cuBLAS gives it to a
    few blocks, each of which walks over all pixels. Parts of it run side by side.

    Args:
        gdt: (4, pixels, d); factors: (4, pixels, rank).
        parts: a divisor of the number of pixels.

    Returns:
        (4, d, rank); in float32 if there are several parts.
    """
    if parts == 1:
        return gdt.transpose(1, 2) @ factors
    gdt, factors = (t.unflatten(1, (parts, -1)) for t in (gdt, factors))  # (4, parts, ., .)
    return (gdt.transpose(2, 3) @ factors).sum(1, dtype=torch.float32)


def _parts(gdt: Tensor) -> int:
    """How many products `weight_gradient` computes: one, except for many pixels on a GPU."""
    pixels = gdt.shape[1]
    return PARTS if gdt.is_cuda and pixels >= MANY_PIXELS and pixels % PARTS == 0 else 1


class _Projected(torch.autograd.Function):
    """A scan that keeps the factors of dt: dt itself is four times as large as x."""

    @staticmethod
    def forward(
        ctx: Any, backend: str, x: Tensor, step: Tensor, weight: Tensor, *others: Tensor
    ) -> Tensor:
        y, saved = torch.ops.vmunet.ss2d(x, project(step, weight), *others, backend, True)
        ctx.backend = backend
        ctx.save_for_backward(x, step, weight, *others, saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, step, weight, *others, saved = ctx.saved_tensors
        dt = project(step, weight)
        gx, gdt, *gothers = torch.ops.vmunet.ss2d_backward(gy, x, dt, *others, saved, ctx.backend)
        gdt = gdt.permute(3, 0, 1, 2, 4).flatten(1, 3)  # (4, bhw, d)
        factors = step.flatten(0, 2).transpose(0, 1)  # (4, bhw, r)
        with torch.autocast(gdt.device.type, enabled=False):
            gstep = (gdt @ weight.to(gdt.dtype)).transpose(0, 1).reshape(step.shape)
            gweight = weight_gradient(gdt, factors, _parts(gdt)).to(weight.dtype)
        return None, gx, gstep, gweight, *gothers


def module(backend: str) -> ModuleType:
    """The module of a compiled backend; it is imported at its first use."""
    return import_module(MODULES[backend])


@torch.library.impl("vmunet::ss2d", "CompositeExplicitAutograd")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *inputs, backend, keep = arguments
    return module(backend).forward(*inputs, keep)


@torch.library.impl("vmunet::ss2d_backward", "CompositeExplicitAutograd")
def _backward(gy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, saved, backend = arguments
    gradients = module(backend).backward(gy, *inputs, saved)
    return tuple(_laid_out_like(g, tensor) for g, tensor in zip(gradients, inputs, strict=True))


def _laid_out_like(gradient: Tensor, tensor: Tensor) -> Tensor:
    """The gradient with the strides of `empty_like(tensor)`, which compiled code expects."""
    layout = tensor.shape, tensor.stride()
    if layout not in _STRIDES:
        _STRIDES[layout] = torch.empty_like(tensor, device="meta").stride()
    if gradient.stride() == _STRIDES[layout]:
        return gradient
    return torch.empty_like(tensor).copy_(gradient)


# Of `empty_like`, by shape and strides: few for a model, and slow to find out at every call.
_STRIDES: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]] = {}


@torch.library.register_fake("vmunet::ss2d")
def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    x, _, A, *_, backend, keep = arguments
    shape = module(backend).saved_shape(x, A) if keep else (0,)
    return x.new_empty(x.shape), x.new_empty(shape, dtype=torch.float32)


@torch.library.register_fake("vmunet::ss2d_backward")
def _fake_backward(gy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, _, _ = arguments
    return tuple(torch.empty_like(tensor) for tensor in inputs)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.backend, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 9
    gradients = torch.ops.vmunet.ss2d_backward(gy, *ctx.saved_tensors, ctx.backend)
    return *gradients, None, None


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError("vmunet.scan.ss2d: a compiled scan cannot be differentiated twice")


torch.library.register_autograd("vmunet::ss2d", _differentiate, setup_context=_setup_context)
torch.library.register_autograd("vmunet::ss2d_backward", _refuse)
