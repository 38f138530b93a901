"""The 2D selective scan on GPUs: forward and backward pass.

The arithmetic is in `triton_kernels`, `triton_two_scans` and `triton_sums`, the choice of a tile in
`triton_tiles`, layouts and launches in `triton_launch`. Inputs are read by their strides in
float32, bfloat16 or float16; states, sums and everything saved are float32. No kernel adds with
atomics: the same input gives the same bits.

Besides its inputs, the forward pass keeps the state before every SPAN-th step for the backward
pass: states / SPAN values for each pixel, direction and channel, half a value with 16 states.
"""

import functools
import importlib.util

import torch
from torch import Tensor

from vmunet.scan import triton_tiles
from vmunet.scan.triton_launch import (
    Launch,
    check,
    finish,
    in_rows,
    merge,
    scans,
    strides,
    two_scans,
)
from vmunet.scan.triton_tiles import Tile, TwoScans

MIN_CAPABILITY = (8, 0)


@functools.cache
def unavailable(device: torch.device) -> str:
    """Why the kernels cannot run on this device, or an empty string."""
    if importlib.util.find_spec("triton") is None:
        return "needs the package triton, which is not installed"
    if interpreted():
        return ""
    if device.type != "cuda":
        return f"takes CUDA tensors, not {device.type} tensors"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"needs a GPU of compute capability 8.0 or more, which {name} is not"
    return ""


def interpreted() -> bool:
    """Whether Triton's interpreter (TRITON_INTERPRET=1) replaces a GPU, as in tests."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def saved_shape(x: Tensor, A: Tensor) -> tuple[int, ...]:
    """Shape of the states that `forward` keeps for `backward`."""
    b, h, w, d = x.shape
    return b, 4, -(-h * w // triton_tiles.SPAN), A.shape[2], d


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    keep: bool,
    tile: Tile | None = None,
    segments: int = 0,
) -> tuple[Tensor, Tensor]:
    """y as `vmunet.scan.ss2d` says, and the states that `backward` needs (none without `keep`).

    Args:
        tile: the part of the work that one program does; measured once per shape if not given.
        segments: parts of a walk that run in parallel; chosen by shape if 0.
    """
    x, dt, A, B, C, D, dt_bias = in_rows(x, dt, A, B, C, D, dt_bias)
    check(x, A, dt, B, C)
    if tile is None:
        tile = triton_tiles.choose(
            triton_tiles.FORWARD,
            _key("forward", x, dt, A, B),
            lambda tile: forward(x, dt, A, B, C, D, dt_bias, keep, tile, segments),
            x.device,
        )
    launch = Launch(x, A, tile.fit(A.shape[2]), segments)
    walks, *summary = launch.workspace(4 * x.numel(), *launch.summary_sizes())
    saved = walks.new_empty(saved_shape(x, A) if keep else 0)
    launch.summary(x, dt, A, B, dt_bias, summary, back=False)
    launch(
        scans().forward_kernel,
        (x, dt, A, B, C, D, dt_bias, walks, saved, *summary),
        (*launch.size, launch.segments, launch.share, launch.reciprocal, *A.stride()[1:]),
        (*strides(x, 2), *strides(dt, 3), *strides(B, 3), *strides(C, 3), x.shape[3]),
        KEEP=keep,
        SPAN=triton_tiles.SPAN,
    )
    return merge(walks, x), saved


def backward(
    gy: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    saved: Tensor,
    tile: Tile | TwoScans | None = None,
    segments: int = 0,
) -> tuple[Tensor, ...]:
    """The gradients of the seven inputs, each in the type of its input.

    A tile of `TwoScans` gives the same gradients, that of A to 1e-5 of its largest entry. If the
    two scans cannot run (see `TwoScans.takes`), the default tile takes the place of theirs.
    """
    gy, x, dt, A, B, C, D, dt_bias = in_rows(gy, x, dt, A, B, C, D, dt_bias)
    check(x, A, dt, B, C, gy)
    if tile is None:
        tile = triton_tiles.choose(
            triton_tiles.backward_tiles(),
            _key("backward", x, dt, A, B),
            lambda tile: backward(gy, x, dt, A, B, C, D, dt_bias, saved, tile, segments),
            x.device,
        )
    if isinstance(tile, TwoScans):
        if tile.takes(x.shape[1], A.shape[2]):
            tile = tile.fit(x.shape[1])
            return _in_two_scans(gy, x, dt, A, B, C, D, dt_bias, saved, tile, segments)
        tile = next(iter(triton_tiles.BACKWARD.values()))
    tile = tile.fit(A.shape[2])
    launch = Launch(x, A, tile, segments)
    gdt = torch.empty_like(dt)
    *parts, scratch, ends, totals = launch.workspace(
        launch.rows * D.numel(),
        launch.rows * D.numel(),
        launch.rows * A.numel(),
        launch.tiles * B.numel(),
        launch.tiles * B.numel(),
        4 * x.numel(),
        launch.programs * (triton_tiles.SPAN // tile.T) * launch.N * tile.channels,
        *launch.summary_sizes(),
    )
    gD, gbias, gA, gB, gC, gx = parts
    launch.summary(gy, dt, A, C, dt_bias, (ends, totals), back=True)
    launch(
        scans().backward_kernel,
        (x, dt, A, B, C, D, dt_bias, gy, saved, ends, totals, gx, gdt, gA, gB, gC, gD, gbias),
        (scratch, *launch.size, launch.segments, launch.share, launch.reciprocal, *A.stride()[1:]),
        (*strides(x, 2), *strides(dt, 3), *strides(B, 3), *strides(C, 3)),
        (*strides(gy, 2), *strides(gdt, 3)),
        SPAN=triton_tiles.SPAN,
    )
    rows = (launch.rows, launch.rows, launch.tiles)
    gD, gbias, gA, gB, gC, gx = finish(parts, rows, (D, dt_bias, A, B, C, x))
    return gx, gdt, gA, gB, gC, gD, gbias


def _in_two_scans(
    gy: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    saved: Tensor,
    tile: TwoScans,
    segments: int,
) -> tuple[Tensor, ...]:
    """`backward` by the kernels of `triton_two_scans`, which ask for plainer layouts."""
    inputs = (D, dt_bias, A, B, C, x)
    gy, x, B, C = gy.contiguous(), x.contiguous(), B.float(), C.float()
    if B.stride()[1:] != C.stride()[1:]:
        B, C = B.contiguous(), C.contiguous()
    gdt = torch.empty_like(dt)
    if gdt.stride() != dt.stride():
        dt = torch.empty_like(dt).copy_(dt)
    launch = Launch(x, A, tile, segments)
    *parts, spans, ends, totals = launch.workspace(
        launch.rows * D.numel(),
        launch.rows * D.numel(),
        2 * launch.rows * A.numel(),
        launch.tiles * B.numel(),
        launch.tiles * B.numel(),
        4 * x.numel(),
        x.shape[0] * 4 * launch.spans * x.shape[3],
        *launch.summary_sizes(),
    )
    gD, gbias, gA, gB, gC, gx = parts
    gA_back = gA[launch.rows * A.numel() :]  # the second scan's rows follow those of the first
    sizes = (*launch.size, launch.segments, launch.share, *A.stride()[1:])
    layout = (*strides(dt, 3), *strides(B, 3), C.stride(0))
    launch(
        two_scans().ahead_kernel,
        (x, dt, A, B, C, dt_bias, gy, saved, gx, spans, ends, totals, gA, gC),
        (*sizes, *layout),
        SUMMARY=launch.segments > 1,
        SPAN=triton_tiles.SPAN,
    )
    launch(
        two_scans().back_kernel,
        (x, dt, A, B, C, D, dt_bias, gy, saved, spans, ends, totals),
        (gx, gdt, gA_back, gB, gD, gbias),
        (*sizes, *layout),
        SPAN=triton_tiles.SPAN,
    )
    rows = (launch.rows, 2 * launch.rows, launch.tiles)
    gD, gbias, gA, gB, gC, gx = finish(parts, rows, inputs)
    return gx, gdt, gA, gB, gC, gD, gbias


def _key(direction: str, x: Tensor, dt: Tensor, A: Tensor, B: Tensor) -> str:
    """The work for which a measured choice of a tile is valid."""
    b, h, w, d = x.shape
    types = "-".join(str(t.dtype).removeprefix("torch.") for t in (x, dt, B))
    batch = triton_tiles.power_of_two(b)
    return f"{direction} {batch}x{h}x{w}x{d} {A.shape[2]} states {types}"
