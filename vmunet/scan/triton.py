"""The 2D selective scan on GPUs: gradients, memory layout and kernel launches.

The arithmetic is in `triton_kernels`, the choice of a tile in `triton_tiles`. Inputs are read by
their strides in float32, bfloat16 or float16; states, sums and everything saved are float32. No
kernel adds with atomics: the same input gives the same bits.

Besides its inputs, the forward pass keeps the state before every SPAN-th step for the backward
pass: states / SPAN values for each pixel, direction and channel, half a value with 16 states.
"""

import functools
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from vmunet.errors import InputError
from vmunet.scan import triton_tiles
from vmunet.scan.triton_tiles import SPAN, Tile

MIN_CAPABILITY = (8, 0)
MAX_STATES = 64
LOG2_E = 1.4426950408889634
MAX_BATCH = 65535  # the second axis of a CUDA grid


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


@functools.cache
def _kernels() -> ModuleType:
    from vmunet.scan import triton_kernels

    return triton_kernels


def saved_shape(x: Tensor, A: Tensor) -> tuple[int, ...]:
    """Shape of the states that `forward` keeps for `backward`."""
    b, h, w, d = x.shape
    return b, 4, -(-h * w // SPAN), A.shape[2], d


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
    x, dt, A, B, C, D, dt_bias = _rows(x, dt, A, B, C, D, dt_bias)
    _check(x, A, dt, B, C)
    if tile is None:
        tile = triton_tiles.choose(
            triton_tiles.FORWARD,
            _key("forward", x, dt, A, B),
            lambda tile: forward(x, dt, A, B, C, D, dt_bias, keep, tile, segments),
            x.device,
        )
    (b, h, w, d), n = x.shape, A.shape[2]
    walks = torch.empty(4, b, h, w, d, device=x.device, dtype=torch.float32)
    saved = walks.new_empty(saved_shape(x, A) if keep else 0)
    launch = _Launch(x, dt, A, D, dt_bias, tile.fit(n), segments)
    ends, totals = launch.summary(x, B, back=False)
    launch(
        _kernels().forward_kernel,
        (x, dt, launch.rate, B, C, launch.D, launch.bias, walks, saved, ends, totals),
        (b, h, w, d, n, launch.segments, launch.share, launch.reciprocal),
        (*_strides(x, 2), *_strides(dt, 3), *_strides(B, 3), *_strides(C, 3), d),
        KEEP=keep,
        SPAN=SPAN,
    )
    return _merge(walks, x.dtype), saved


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
    tile: Tile | None = None,
    segments: int = 0,
) -> tuple[Tensor, ...]:
    """The gradients of the seven inputs, each in the type of its input."""
    inputs = (x, dt, A, B, C, D, dt_bias)
    gy, x, dt, A, B, C, D, dt_bias = _rows(gy, x, dt, A, B, C, D, dt_bias)
    _check(x, A, dt, B, C, gy)
    if tile is None:
        tile = triton_tiles.choose(
            triton_tiles.BACKWARD,
            _key("backward", x, dt, A, B),
            lambda tile: backward(gy, x, dt, A, B, C, D, dt_bias, saved, tile, segments),
            x.device,
        )
    (b, h, w, d), n = x.shape, A.shape[2]
    launch = _Launch(x, dt, A, D, dt_bias, tile.fit(n), segments)
    ends, totals = launch.summary(gy, C, back=True)
    new = functools.partial(torch.empty, device=x.device, dtype=torch.float32)
    gx = new(4, b, h, w, d)
    gdt = torch.empty_like(dt)
    gA = new(b, launch.segments, 4, n, d)
    gB, gC = new(2, launch.tiles, b, h, w, 4, n)
    gD, gbias = new(2, b, launch.segments, 4, d)
    scratch = new(launch.programs, SPAN // launch.tile.T, launch.N, launch.tile.channels)
    gradients = (gx, gdt, gA, gB, gC, gD, gbias)
    launch(
        _kernels().backward_kernel,
        (x, dt, launch.rate, B, C, launch.D, launch.bias, gy, saved, ends, totals, *gradients),
        (scratch, b, h, w, d, n, launch.segments, launch.share, launch.reciprocal),
        (*_strides(x, 2), *_strides(dt, 3), *_strides(B, 3), *_strides(C, 3)),
        (*_strides(gy, 2), *_strides(gdt, 3)),
        SPAN=SPAN,
    )
    gradients = (
        _merge(gx, x.dtype),
        gdt,
        gA.sum((0, 1)).transpose(1, 2),  # (4, d, n)
        gB.sum(0),
        gC.sum(0),
        gD.sum((0, 1)),
        gbias.sum((0, 1)),
    )
    return tuple(g.to(tensor.dtype) for g, tensor in zip(gradients, inputs, strict=True))


class _Launch:
    """What the kernels of one pass share: sizes, the grid, the layout of the small inputs."""

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        D: Tensor,
        dt_bias: Tensor,
        tile: Tile,
        segments: int,
    ) -> None:
        self.tile, self.dt = tile, dt
        b, h, w, d = x.shape
        self.size = (h, w, d, A.shape[2])
        self.N = triton_tiles.power_of_two(A.shape[2])
        self.tiles = -(-d // tile.channels)
        walks = 4 * b * self.tiles
        wanted = segments or triton_tiles.segments(walks, h * w, x.device)
        spans = -(-h * w // SPAN)
        self.share = -(-spans // wanted) * SPAN  # steps of a segment
        self.segments = -(-h * w // self.share)
        self.programs = walks * self.segments
        self.grid = (self.tiles, b, 4 * self.segments)
        reciprocal = 0 if h == 1 else -(-(2**32) // h)
        self.reciprocal = reciprocal - 2**32 if reciprocal >= 2**31 else reciprocal
        self.rate = (A.float().transpose(1, 2) * LOG2_E).contiguous()  # (4, n, d)
        self.D, self.bias = D.float().contiguous(), dt_bias.float().contiguous()

    def __call__(self, kernel: Callable, *arguments: tuple, **constants: object) -> None:
        tile = self.tile
        flat = [argument for group in arguments for argument in group]
        shape = {"T": tile.T, "CH": tile.CH, "N": self.N, "LD": tile.LD}
        with on(self.dt.device):
            kernel[self.grid](*flat, **constants, **shape, num_warps=1)  # type: ignore[index]

    def summary(self, signal: Tensor, matrix: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        """Each segment's end from a zero state, and its sum of time steps; none for one segment."""
        h, w, d, n = self.size
        b = signal.shape[0]
        count = self.segments if self.segments > 1 else 0
        ends = self.rate.new_empty(b, 4, count, n, d)
        totals = self.rate.new_empty(b, 4, count, d)
        if count:
            self(
                _kernels().summary_kernel,
                (signal, self.dt, self.rate, matrix, self.bias, ends, totals),
                (h, w, d, n, count, self.share, self.reciprocal),
                (*_strides(signal, 2), *_strides(self.dt, 3), *_strides(matrix, 3)),
                BACK=back,
            )
        return ends, totals


def on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors; each is copied if its last axis or its rows are not contiguous in memory."""
    return tuple(t if _in_rows(t) else t.contiguous() for t in tensors)


def _in_rows(tensor: Tensor) -> bool:
    if tensor.ndim < 4:
        return tensor.is_contiguous()
    _, height, width = tensor.shape[:3]
    joined = height == 1 or width == 1 or tensor.stride(1) == width * tensor.stride(2)
    return joined and tensor.stride(-1) == 1


def _strides(tensor: Tensor, count: int) -> tuple[int, ...]:
    """The strides of image and pixel, and of the walk if `count` is 3."""
    image, row, column, *rest = tensor.stride()
    pixel = column if tensor.shape[2] > 1 else row  # the stride of a single pixel says nothing
    return (image, pixel, *rest)[:count]


def _check(x: Tensor, A: Tensor, *maps: Tensor) -> None:
    b, h, w, d = x.shape
    n, pixels = A.shape[2], h * w
    if n > MAX_STATES:
        raise InputError(
            f"ss2d: {n} states; the triton backend takes up to {MAX_STATES}: "
            "use the backend 'reference'"
        )
    if b > MAX_BATCH:
        raise InputError(
            f"ss2d: the triton backend takes up to {MAX_BATCH} images at once, not {b}"
        )
    rows = max(_strides(tensor, 2)[1] for tensor in (x, *maps))
    offsets = max(pixels * max(rows, 4 * d, 4 * n), -(-pixels // SPAN) * n * d)
    if offsets >= 2**31 or pixels * h >= 2**32:
        raise InputError(
            f"ss2d: an image of {h}x{w} pixels with {d} channels is too large for the 32-bit "
            "offsets of the triton backend: use smaller images, or the backend 'reference'"
        )


def _merge(walks: Tensor, dtype: torch.dtype) -> Tensor:
    """(4, b, h, w, d) in float32 -> their sum, (b, h, w, d)."""
    merged = torch.empty(walks.shape[1:], device=walks.device, dtype=dtype)
    block = 1024
    grid = (-(-merged.numel() // block),)
    with on(walks.device):
        _kernels().merge_kernel[grid](walks, merged, merged.numel(), K=4, BLOCK=block)
    return merged


def _key(direction: str, x: Tensor, dt: Tensor, A: Tensor, B: Tensor) -> str:
    """The work for which a measured choice of a tile is valid."""
    b, h, w, d = x.shape
    types = "-".join(str(t.dtype).removeprefix("torch.") for t in (x, dt, B))
    batch = triton_tiles.power_of_two(b)
    return f"{direction} {batch}x{h}x{w}x{d} {A.shape[2]} states {types}"
