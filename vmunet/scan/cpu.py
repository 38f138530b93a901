"""The 2D selective scan on processors: gradients, memory layout and threads.

The arithmetic is in `cpu_kernels`. numba compiles it at the first use on a machine (some seconds)
and keeps the result beside the source or, if that folder cannot be written, in the user's cache
folder. Threads are Python's own, as many as torch is set to: the compiled functions release the
interpreter's lock, and no two jobs write the same output.
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
from torch import Tensor

LANES = 16  # channels in a group, as in the kernels
CHUNK = 16  # steps between saved states, as in the kernels
TILE = 6  # groups in a job: wide enough to share the rows of B and C
LOG2_E = 1.4426950408889634


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


def unavailable(device: torch.device) -> str:
    """Why the kernels cannot run on this device, or an empty string."""
    return "" if device.type == "cpu" else f"takes CPU tensors, not {device.type} tensors"


def saved_shape(x: Tensor, A: Tensor) -> tuple[int, ...]:
    """Shape of the states that `forward` keeps for `backward`: those before every chunk."""
    b, h, w, d = x.shape
    return b, 4, -(-h * w // CHUNK), -(-d // LANES), A.shape[2], LANES


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """y as `vmunet.scan.ss2d` says, and the states that `backward` needs (none without `keep`).

    Takes float32, bfloat16 and float16, and computes in float32.
    """
    kernels = _kernels()
    laid_out = _lay_out(x, dt, A, B, C, D, dt_bias)
    (b, h, w, d), n = x.shape, A.shape[2]
    groups = laid_out[0].shape[2]
    tile = min(TILE, groups)
    y = torch.empty(b, h, w, groups * LANES)
    saved = torch.empty(saved_shape(x, A) if keep else (b, 4, 0, groups, n, LANES))
    scratch = ((tile, n, LANES), (CHUNK, tile, 2, LANES))
    others = (y.view(laid_out[0].shape), saved)
    _run(kernels.forward, b * -(-groups // tile), _order(h, w), laid_out, scratch, others)
    if y.shape[-1] > d:
        y = y[..., :d].contiguous()  # a copy: callers may change it in place
    return y.to(x.dtype), saved if keep else saved.new_empty(0)


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
) -> tuple[Tensor, ...]:
    """The gradients of the seven inputs, each in the type of its input."""
    kernels = _kernels()
    inputs = (x, dt, A, B, C, D, dt_bias)
    laid_out = _lay_out(*inputs)
    x, dt, decay, B = laid_out[:4]
    (b, h, w, d), n = inputs[0].shape, decay.shape[2]
    groups = x.shape[2]
    tile = min(TILE, groups)
    tiles = -(-groups // tile)
    gx, gdt = torch.empty_like(x), torch.empty_like(dt)
    gA = x.new_empty(b, 4, groups, n, LANES)
    gB, gC = x.new_empty(2, tiles, *B.shape)
    gD = x.new_empty(b, groups, LANES)
    gbias = x.new_empty(b, 4, groups, LANES)
    scratch = ((tile + 4 * CHUNK + 2, n, LANES), (CHUNK, 6, LANES), (tile, n + 2, LANES))
    gy = _pad(gy.float()).contiguous().view(x.shape)
    others = (saved, gy, gx, gdt, gA, gB, gC, gD, gbias)
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
    return tuple(g.to(like.dtype) for g, like in zip(gradients, inputs, strict=True))


def _lay_out(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
) -> tuple[Tensor, ...]:
    """x, dt, decay, B, C, D, bias as `cpu_kernels` takes them; dt, B and C stay views if possible.

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


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _pad(tensor: Tensor) -> Tensor:
    """The last axis, padded with zeros to whole groups."""
    missing = -tensor.shape[-1] % LANES
    return F.pad(tensor, (0, missing)) if missing else tensor


def _trim(image: Tensor, *shape: int) -> Tensor:
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
        # torch's memory starts at a multiple of 64 bytes, so a vector fits one cache line
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
