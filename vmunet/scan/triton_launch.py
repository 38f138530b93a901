"""Launches of the GPU scan's kernels: layouts, sizes, memory for partial results."""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from vmunet.errors import InputError
from vmunet.scan import triton_tiles
from vmunet.scan.triton_tiles import Tile, TwoScans

MAX_STATES = 64
MAX_BATCH = 65535  # the second axis of a CUDA grid
ALIGNED = 32  # values between the starts of partial results: 128 bytes


@functools.cache
def scans() -> ModuleType:
    """The kernels of the scan; Triton is imported at the first use."""
    from vmunet.scan import triton_kernels

    return triton_kernels


@functools.cache
def two_scans() -> ModuleType:
    """The kernels of the backward pass in two scans."""
    from vmunet.scan import triton_two_scans

    return triton_two_scans


@functools.cache
def sums() -> ModuleType:
    """The kernels that add partial results."""
    from vmunet.scan import triton_sums

    return triton_sums


class Launch:
    """What the kernels of one pass share: sizes, the grid, how a walk is cut."""

    def __init__(self, x: Tensor, A: Tensor, tile: Tile | TwoScans, segments: int) -> None:
        """segments: parts of a walk that run in parallel; chosen by shape if 0."""
        self.device = x.device
        b, h, w, d = x.shape
        n = A.shape[2]
        steps, span = h * w, triton_tiles.SPAN
        self.size = (b, h, w, d, n)
        self.tiles = -(-d // tile.channels)
        walks = 4 * b * self.tiles
        least = (
            triton_tiles.LEAST_SEGMENTS
            if isinstance(tile, Tile)
            else triton_tiles.LEAST_OF_TWO_SCANS
        )
        wanted = segments or triton_tiles.segments(walks, steps, x.device, least)
        self.spans = -(-steps // span)
        self.share = -(-self.spans // wanted) * span  # steps of a segment
        self.segments = -(-steps // self.share)
        self.rows = b * self.segments  # of the partial sums of small gradients
        self.programs = walks * self.segments
        self.grid = (self.tiles, b, 4 * self.segments)
        reciprocal = 0 if h == 1 else -(-(2**32) // h)
        self.reciprocal = reciprocal - 2**32 if reciprocal >= 2**31 else reciprocal
        self.N = triton_tiles.power_of_two(n)
        self.constants = {"CH": tile.CH, "LD": tile.LD, "N": self.N}
        if isinstance(tile, Tile):
            self.constants["T"] = tile.T
        else:
            divides = d % tile.channels == 0 and steps % tile.U == 0 and self.share % tile.U == 0
            self.constants |= {"U": tile.U, "EVEN": divides and n == self.N}
            if tile.registers and torch.version.hip is None:
                self.constants["maxnreg"] = tile.registers

    def __call__(self, kernel: Callable, *arguments: Sequence, **constants: object) -> None:
        flat = [argument for group in arguments for argument in group]
        with on(self.device):
            kernel[self.grid](*flat, **constants, **self.constants, num_warps=1)  # type: ignore[index]

    def workspace(self, *sizes: int) -> tuple[Tensor, ...]:
        """Float32 memory for partial results of these sizes, flat, all in one allocation."""
        places = [-(-size // ALIGNED) * ALIGNED for size in sizes]
        memory = torch.empty(sum(places), device=self.device, dtype=torch.float32)
        return memory.split(places)

    def summary_sizes(self) -> tuple[int, int]:
        """Values of a summary: each segment's end, and its sum of time steps; of one, none."""
        b, _, _, d, n = self.size
        count = self.segments if self.segments > 1 else 0
        return b * 4 * count * n * d, b * 4 * count * d

    def summary(
        self,
        signal: Tensor,
        dt: Tensor,
        A: Tensor,
        matrix: Tensor,
        dt_bias: Tensor,
        results: Sequence[Tensor],
        back: bool,
    ) -> None:
        """Fill a summary, `results`, if there are several segments; see `summary_kernel`."""
        if self.segments > 1:
            self(
                scans().summary_kernel,
                (signal, dt, A, matrix, dt_bias, *results),
                (*self.size[1:], self.segments, self.share, self.reciprocal, *A.stride()[1:]),
                (*strides(signal, 2), *strides(dt, 3), *strides(matrix, 3)),
                BACK=back,
            )


def on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def merge(walks: Tensor, like: Tensor) -> Tensor:
    """The sum of the four walks, (4, b, h, w, d) in float32, in the type and shape of `like`."""
    kernels = sums()
    merged = torch.empty(like.shape, device=like.device, dtype=like.dtype)
    size = merged.numel()
    with on(like.device):
        kernels.merge_kernel[-(-size // kernels.BLOCK),](
            walks, merged, 4, size, BLOCK=kernels.BLOCK
        )
    return merged


def finish(
    parts: Sequence[Tensor], rows: tuple[int, int, int], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The gradients of D, dt_bias, A, B, C and x from their partial sums, in one launch.

    Args:
        parts: in this order; see `triton_sums.finish_kernel`.
        rows: the number of parts of D and dt_bias, of A, and of B and C. Those of x are 4 walks.
        inputs: the tensors in this order; a gradient has the shape and type of its input.
    """
    kernels = sums()
    wholes = tuple(torch.empty(t.shape, device=t.device, dtype=t.dtype) for t in inputs)
    sizes = [whole.numel() for whole in wholes]
    D, _, A, B, _, x = sizes
    blocks = sum(-(-size // kernels.BLOCK) for size in sizes)
    with on(wholes[0].device):
        kernels.finish_kernel[blocks,](*parts, *wholes, *rows, D, A, B, x, BLOCK=kernels.BLOCK)
    return wholes


def in_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors; each is copied if its last axis or its rows are not contiguous in memory."""
    return tuple(t if _is_in_rows(t) else t.contiguous() for t in tensors)


def _is_in_rows(tensor: Tensor) -> bool:
    if tensor.ndim < 4:
        return tensor.is_contiguous()
    _, height, width = tensor.shape[:3]
    joined = height == 1 or width == 1 or tensor.stride(1) == width * tensor.stride(2)
    return joined and tensor.stride(-1) == 1


def strides(tensor: Tensor, count: int) -> tuple[int, ...]:
    """The strides of image and pixel, and of the walk if `count` is 3."""
    image, row, column, *rest = tensor.stride()
    pixel = column if tensor.shape[2] > 1 else row  # the stride of a single pixel says nothing
    return (image, pixel, *rest)[:count]


def check(x: Tensor, A: Tensor, *maps: Tensor) -> None:
    """Refuse what the kernels' 32-bit offsets and grids cannot reach.

    Raises:
        InputError: too many states or images, or images that are too large.
    """
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
    rows = max(strides(tensor, 2)[1] for tensor in (x, *maps))
    offsets = max(pixels * max(rows, 4 * d, 4 * n), -(-pixels // triton_tiles.SPAN) * n * d)
    if offsets >= 2**31 or pixels * h >= 2**32:
        raise InputError(
            f"ss2d: an image of {h}x{w} pixels with {d} channels is too large for the 32-bit "
            "offsets of the triton backend: use smaller images, or the backend 'reference'"
        )
