"""Inputs of the 2D selective scan, as a freshly initialised VM-UNet gives them."""

import math

import torch

NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias")


def scan_inputs(b, h, w, d, n=16, seed=0, dtype=torch.float32):
    """The seven arguments of `ss2d`; dt is (4, b, h, w, d) in memory, as the projection leaves it.

    A = -(1..n); dt_bias is the inverse softplus of a log-uniform draw from [1e-3, 1e-1].
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    low, high = math.log(1e-3), math.log(1e-1)
    uniform = torch.rand(4, d, generator=generator, dtype=torch.float64)
    delta = torch.exp(low + (high - low) * uniform)
    inputs = (
        draw(b, h, w, d),
        0.1 * draw(4, b, h, w, d).permute(1, 2, 3, 0, 4),
        -torch.arange(1.0, n + 1).double().repeat(4, d, 1),
        draw(b, h, w, 4, n),
        draw(b, h, w, 4, n),
        1 + 0.1 * draw(4, d),
        delta + torch.log(-torch.expm1(-delta)),
    )
    return tuple(tensor.to(dtype) for tensor in inputs)


def output_and_gradients(scan, inputs, gy, dtype):
    """{"y": scan's output, name: its gradient for every input}, all computed in `dtype`."""
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    y = scan(*inputs)
    gradients = torch.autograd.grad(y, inputs, gy.to(y.dtype))
    return dict(zip(("y", *NAMES), (y.detach(), *gradients), strict=True))


def error(values, truth):
    """The largest difference, as a part of the largest true value."""
    return ((values.double() - truth).abs().max() / truth.abs().max().clamp(min=1e-30)).item()
