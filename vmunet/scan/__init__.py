"""The 2D selective scan (SS2D): one operator, and several backends that compute the same result.

`reference` is the definition, in plain PyTorch. `cpu` is the fast path for processors (numba),
`triton` the one for GPUs. `mamba` is mamba-ssm's CUDA scan, for comparison. Each backend is a
module of the same name, imported at its first use.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from vmunet.errors import InputError
from vmunet.scan import operator, reference

__all__ = ["backend", "backends", "ss2d", "ss2d_projected"]

_FASTEST = {"cpu": "cpu", "cuda": "triton"}  # by device type
_forced: ContextVar[str | None] = ContextVar("vmunet_scan_backend", default=None)


def backends() -> tuple[str, ...]:
    """The names that `backend` takes."""
    return "reference", *operator.MODULES


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Use one backend for every scan inside the `with` block, in this thread or task only.

    Without it the device and the type of the input choose: float64 takes `reference`, other
    types the fastest backend of their device. A compiled model keeps the backend that was in
    force when torch.compile traced it.

    Args:
        name: one of `backends()`.

    Raises:
        InputError: there is no backend of this name, or (at the scan) it cannot take the input.
    """
    if name not in backends():
        raise InputError(
            f"there is no scan backend {name!r}: choose one of {', '.join(backends())}"
        )
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def ss2d(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
) -> torch.Tensor:
    """Scan an image along four directions with a selective state-space model; sum the results.

    Along a direction, t counts the pixels in the order of the walk, and for every channel

        delta_t = softplus(dt_t + dt_bias)
        h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t        (n states, h_0 = 0)
        y_t = C_t . h_t + D x_t

    The input term delta B is first order in delta. It is what the published code of VMamba and
    VM-UNet computes, not the full zero-order hold of the paper's equation 2.

    Index k of a direction: 0 row by row, 1 column by column, 2 row by row from the last pixel
    back, 3 column by column from the last pixel back (paper, section III-B, scan expanding and
    merging). Every map is given in image order; no direction needs a copy.

    Args:
        x: (batch, height, width, channels), the input.
        dt: (batch, height, width, 4, channels), the time step before softplus. Any strides: the
            projection leaves it as (4, batch, height, width, channels) in memory.
        A: (4, channels, states), negative.
        B, C: (batch, height, width, 4, states).
        D, dt_bias: (4, channels).

    Returns:
        (batch, height, width, channels) in the type of x. The state is kept in float32 whatever
        the types of the inputs and autocast are (in float64 if an input is float64).

    Raises:
        InputError: shapes, types or devices do not fit, or a forced backend cannot take them.
    """
    arguments = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "dt_bias": dt_bias}
    _check(arguments)
    double = any(tensor.dtype == torch.float64 for tensor in arguments.values())
    name = _choose(x.device, double)
    if name == "reference":
        return reference.ss2d(*arguments.values())
    return operator.scan(name, *arguments.values())


def ss2d_projected(
    x: torch.Tensor,
    step: torch.Tensor,
    weight: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
) -> torch.Tensor:
    """`ss2d` with dt given by its factors: dt[..., k, :] = weight[k] step[..., k, :].

    The model's time steps have a low rank, 1/16 of its width. The compiled backends keep the
    factors for the backward pass and multiply them again there: dt itself would take most of the
    memory that a scan keeps.

    Args:
        step: (batch, height, width, 4, rank).
        weight: (4, channels, rank); converted to the type of `step`, as autocast would.
        x, A, B, C, D, dt_bias: as for `ss2d`.

    Returns:
        As for `ss2d`.

    Raises:
        InputError: as for `ss2d`.
    """
    if weight.ndim != 3 or step.ndim != 5 or step.shape[3:] != (4, weight.shape[2]):
        raise InputError(
            f"ss2d_projected: step has shape {tuple(step.shape)}, expected (batch, height, width, "
            f"4, rank) with weight (4, channels, rank) {tuple(weight.shape)}"
        )
    name = _choose(x.device, any(t.dtype == torch.float64 for t in (x, step, A, B, C, D, dt_bias)))
    if name == "reference":
        return ss2d(x, operator.project(step, weight), A, B, C, D, dt_bias)
    dt = step[..., :1].expand(*step.shape[:4], weight.shape[1])  # has dt's shape, for the checks
    _check({"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "dt_bias": dt_bias})
    return operator.scan_projected(name, x, step, weight, A, B, C, D, dt_bias)


def _choose(device: torch.device, double: bool) -> str:
    """The forced backend, or the fastest one that can take the input if none is forced."""
    name = _forced.get()
    if name is not None:
        if reason := _unfit(name, device, double):
            raise InputError(f"scan backend {name!r} {reason}: use the backend 'reference'")
        return name
    if double:
        return "reference"
    name = _FASTEST.get(device.type)
    if name is None:
        _warn_slow(f"there is no scan kernel for {device.type} devices")
    elif reason := _unfit(name, device, double):
        _warn_slow(f"scan backend {name!r} {reason}")
    else:
        return name
    return "reference"


# torch.compile calls `_choose` while it traces and keeps the answer. The decorator
# torch.compiler.assume_constant_result sets the same flag, but importing it takes as long as torch.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _unfit(name: str, device: torch.device, double: bool) -> str:
    """Why a backend cannot take inputs on this device, or an empty string."""
    if name == "reference":
        return ""
    if double:
        return "takes float32, bfloat16 or float16, not float64"
    return operator.module(name).unavailable(device)


@functools.cache
def _warn_slow(reason: str) -> None:
    warnings.warn(f"{reason}: the slow reference backend is used", stacklevel=4)


def _check(arguments: dict[str, torch.Tensor]) -> None:
    x, A = arguments["x"], arguments["A"]
    if x.ndim != 4 or 0 in x.shape:
        raise InputError(
            f"ss2d: x has shape {tuple(x.shape)}, expected (batch, height, width, channels), none 0"
        )
    if A.ndim != 3 or A.shape[2] == 0:
        raise InputError(
            f"ss2d: A has shape {tuple(A.shape)}, expected (4, channels, states), none 0"
        )
    *image, d = x.shape
    n = A.shape[2]
    expected = {
        "dt": (*image, 4, d),
        "A": (4, d, n),
        "B": (*image, 4, n),
        "C": (*image, 4, n),
        "D": (4, d),
        "dt_bias": (4, d),
    }
    for name, shape in expected.items():
        if tuple(arguments[name].shape) != shape:
            raise InputError(
                f"ss2d: {name} has shape {tuple(arguments[name].shape)}, expected {shape} "
                f"with x {tuple(x.shape)} and {n} states"
            )
    for name, tensor in arguments.items():
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise InputError(f"ss2d: {name} is {tensor.dtype}, expected a floating-point type")
        if tensor.device != x.device:
            raise InputError(f"ss2d: {name} is on {tensor.device} but x is on {x.device}")
