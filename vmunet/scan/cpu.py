"""The 2D selective scan on processors: what autograd, memory layout and threads need.

The arithmetic is in `cpu_kernels`. numba compiles it at the first use on a machine (some seconds)
and keeps the result beside the source or, where that cannot be written, in the user's cache
folder. Threads are Python's own, as many as torch is set to: the compiled functions let go of the
interpreter's lock and every job owns its outputs.
"""

import functools
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

LANES = 16  # channels in a group
TILE = 6  # groups in a job: wide enough to share the rows of B and C
LOG2_E = 1.4426950408889634


def ss2d(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
) -> torch.Tensor:
    """`vmunet.scan.ss2d` for float32, bfloat16 and float16 on the CPU, computed in float32."""
    inputs = (x, dt, A, B, C, D, dt_bias)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    return _Scan.apply(*inputs, keep)


def warm_up() -> float:
    """Load the kernels, compiling them where that was never done; return the seconds it took.

    A scan does this by itself at its first call. If it takes long, a line on standard error says
    what the program waits for.
    """
    began = time.perf_counter()
    _kernels()
    return time.perf_counter() - began


@functools.cache
def _kernels() -> ModuleType:
    line = "preparing the CPU scan: the first start on a machine compiles it, in 5 to 20 seconds"
    notice = threading.Timer(1.5, print, (line,), {"file": sys.stderr})
    notice.daemon = True
    notice.start()
    try:
        from vmunet.scan import cpu_kernels
    finally:
        notice.cancel()
    return cpu_kernels


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        *inputs, keep = arguments
        kernels = _kernels()
        laid_out = _lay_out(*(tensor.detach() for tensor in inputs))
        x, _, decay = laid_out[:3]
        (b, h, w, d), n = inputs[0].shape, decay.shape[2]
        length, groups = x.shape[1:3]
        chunks = -(-length // kernels.CHUNK) if keep else 0
        tile = min(TILE, groups)
        y = x.new_empty(b, h, w, groups * LANES)
        saved = x.new_empty(b, 4, chunks, groups, n, LANES)
        scratch = ((tile, n, LANES), (kernels.CHUNK, tile, 2, LANES))
        others = (y.view(x.shape), saved)
        _run(kernels.forward, b * -(-groups // tile), _order(h, w), laid_out, scratch, others)
        if keep:
            ctx.save_for_backward(*laid_out, saved)
            ctx.like = [(tensor.shape, tensor.dtype) for tensor in inputs]
        if y.shape[-1] > d:
            y = y[..., :d].contiguous()  # no view: callers may change it in place
        return y.to(inputs[0].dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernels = _kernels()
        *laid_out, saved = ctx.saved_tensors
        x, dt, decay, B = laid_out[:4]
        (b, h, w, d), n = ctx.like[0][0], decay.shape[2]
        groups = x.shape[2]
        tile = min(TILE, groups)
        tiles = -(-groups // tile)
        gx, gdt = torch.empty_like(x), torch.empty_like(dt)
        gA = x.new_empty(b, 4, groups, n, LANES)
        gB, gC = x.new_empty(2, tiles, *B.shape)
        gD = x.new_empty(b, groups, LANES)
        gbias = x.new_empty(b, 4, groups, LANES)
        scratch = (
            (tile + 4 * kernels.CHUNK + 2, n, LANES),
            (kernels.CHUNK, 6, LANES),
            (tile, n + 2, LANES),
        )
        others = (
            saved,
            _pad(gy.float()).contiguous().view(x.shape),
            gx,
            gdt,
            gA,
            gB,
            gC,
            gD,
            gbias,
        )
        _run(kernels.backward, b * tiles, _order(h, w), laid_out, scratch, others)
        gradients = (
            _trim(gx, b, h, w, d),
            _trim(gdt, b, h, w, 4, d),
            gA.sum(0).transpose(2, 3).flatten(1, 2)[:, :d],  # (4, d, n)
            gB.sum(0).unflatten(1, (h, w)),
            gC.sum(0).unflatten(1, (h, w)),
            gD.sum(0).flatten()[:d].repeat(4, 1),  # (4, d)
            gbias.sum(0).flatten(1)[:, :d],  # (4, d)
        )
        return *(g.to(dtype) for g, (_, dtype) in zip(gradients, ctx.like, strict=True)), None


def _lay_out(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """x, dt, decay, B, C, D, bias as `cpu_kernels` takes them; dt, B and C are views if they can.

    Added channels have x = 0 and A = 0, so they add nothing to any result.
    """
    x, dt, D, dt_bias = (_pad(tensor.float()) for tensor in (x, dt, D, dt_bias))
    groups = (x.shape[-1] // LANES, LANES)
    decay = _pad(A.float().transpose(1, 2) * LOG2_E)  # (4, n, d)
    return (
        x.contiguous().flatten(1, 2).unflatten(2, groups),  # (b, l, groups, 16)
        _rows(dt).flatten(1, 2).unflatten(3, groups),  # (b, l, 4, groups, 16)
        decay.unflatten(2, groups).transpose(1, 2).contiguous(),  # (4, groups, n, 16)
        _rows(B.float()).flatten(1, 2),  # (b, l, 4, n)
        _rows(C.float()).flatten(1, 2),  # (b, l, 4, n)
        D.sum(0).unflatten(0, groups),  # (groups, 16)
        dt_bias.contiguous().unflatten(1, groups),  # (4, groups, 16)
    )


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _pad(tensor: torch.Tensor) -> torch.Tensor:
    """The last axis, padded with zeros to whole groups."""
    missing = -tensor.shape[-1] % LANES
    return F.pad(tensor, (0, missing)) if missing else tensor


def _trim(image: torch.Tensor, *shape: int) -> torch.Tensor:
    """(b, l, ..., groups, 16) -> (b, h, w, ..., channels), as `shape` says."""
    return image.flatten(-2)[..., : shape[-1]].unflatten(1, shape[1:3])


@functools.lru_cache(maxsize=64)
def _order(height: int, width: int) -> np.ndarray:
    """(4, l): the pixel that each direction visits at each step."""
    pixels = np.arange(height * width).reshape(height, width)
    rows, columns = pixels.ravel(), pixels.T.ravel()
    return np.stack([rows, columns, rows[::-1], columns[::-1]])


def _run(
    kernel: Any,
    jobs: int,
    order: np.ndarray,
    inputs: Any,
    scratch: Any,
    others: Any,
) -> None:
    """Call the kernel for all jobs, on as many threads as torch is set to."""
    before = [tensor.detach().numpy() for tensor in inputs]
    after = [tensor.detach().numpy() for tensor in others]

    def work(first: int, last: int) -> None:
        # torch's memory starts at a multiple of 64 bytes, so a vector lies in one cache line
        space = (torch.empty(shape).numpy() for shape in scratch)
        kernel(*before, order, first, last, *space, *after)

    threads = min(torch.get_num_threads(), jobs)
    if threads == 1:
        work(0, jobs)
        return
    bounds = [jobs * i // threads for i in range(threads + 1)]
    list(_pool(os.getpid(), threads).map(work, bounds[:-1], bounds[1:]))


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: a child process makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"scan-{process}")
