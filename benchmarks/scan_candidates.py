"""Every way to run our GPU scan, against each other: tiles, layouts, sums.

Run it on an idle GPU, from the repository's root; it takes at most 100 seconds:

    python -m benchmarks.scan_gpu --candidates

The kernels are compiled by several processes at once. Each of them also compares its candidates'
output and gradients with the reference in float64, in float32 on a small image; a candidate that is
wrong is not timed. Then, for every stage of the full-width model at 256 x 256 with 32 images and
with 1, in bfloat16:

  forward   the tiles of `triton_tiles.FORWARD`
  backward  the tiles of `triton_tiles.BACKWARD` and some more of the single scan; the two scans
            (`triton_two_scans`) with all layouts and register limits that were compiled, for one
            image as many segments as the shape chooses, for 32 also two where walks are long
  weight    the ways to compute the gradient of the dt projection's weight (32 images): as one
            product, in parts, with the rank padded for the sake of alignment

`seconds` is the median time on the GPU with the L2 cache flushed; `host_seconds`, for one image, is
the time between calls as a program sees them, host or GPU, whichever is slower. `error` is that on
the small image, as a part of the largest entry. What the time does not suffice for is left out, and
`complete` is false then.

With TRITON_INTERPRET=1 it runs itself through on tiny images without a GPU and times nothing.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import RESULTS, gpu, interleaved_on_gpu, need_cuda, save, write
from benchmarks.scan_gpu import BATCHES, STAGES, model_inputs
from vmunet.scan import operator, reference, triton, triton_tiles
from vmunet.scan.triton_tiles import Tile, TwoScans

OUTPUT = RESULTS / "scan_candidates.json"
LIMIT = 100.0  # seconds
WORKERS = 8
FORWARD = triton_tiles.FORWARD
BACKWARD: dict[str, Tile | TwoScans] = {
    **triton_tiles.BACKWARD,
    "4 steps of 16, in 16 lanes": Tile(T=4, CH=1, LD=16),
    "2 steps of 32, in 32 lanes": Tile(T=2, CH=1, LD=32),
    **{
        f"two scans, U {u}, {ch} x {ld}, {registers or 255} registers": TwoScans(
            u, ch, ld, registers
        )
        for u, ch, ld, registers in (
            (4, 1, 32, 168),
            (4, 1, 32, 200),
            (4, 1, 32, None),
            (4, 1, 32, 128),
            (2, 1, 32, 128),
            (2, 2, 16, 128),
            (1, 2, 32, 168),
            (1, 2, 32, 200),
        )
    },
}
SMALL = (1, 16, 128)  # batch, side, channels of the comparison with the reference
TINY = (1, 2, 16)  # in the interpreter
WRONG = 2e-5  # of the largest entry, in float32
LONG = 1024  # steps of a walk from which 32 images are also cut into two segments
HOST_ROUNDS = 30


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def device() -> str:
    return "cpu" if interpreted() else "cuda"


def error(value: Tensor, truth: Tensor) -> float:
    """The largest difference, as a part of the largest true entry; not below NaN."""
    return ((value.double() - truth).abs().max() / truth.abs().max()).item()


def check(what: str, name: str) -> float:
    """Compile a candidate for float32 and bfloat16; its largest error on a small image.

    The float32 run is compared, with one segment and with two (in the interpreter it is the only
    one, with one segment).
    """
    cuts = (1,) if interpreted() else (1, 2)
    dtypes = (torch.float32,) if interpreted() else (torch.bfloat16, torch.float32)
    shape = TINY if interpreted() else SMALL
    torch.manual_seed(0)
    inputs = [t.detach() for t in model_inputs(*shape, torch.float32, device())]
    gy = torch.randn_like(inputs[0])
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    y = reference.ss2d(*exact)
    truth = [y]
    if what == "backward":
        truth = list(torch.autograd.grad(y, exact, gy.double()))
    for dtype in dtypes:
        x, dt, A, B, C, D, dt_bias = inputs
        maps = [x.to(dtype), dt.to(dtype), A, B.to(dtype), C.to(dtype), D, dt_bias]
        values = []
        for cut in cuts:
            if what == "forward":
                values.append(triton.forward(*maps, True, FORWARD[name], cut)[0])
            else:
                _, saved = triton.forward(*maps, True, next(iter(FORWARD.values())), 1)
                values += triton.backward(gy.to(dtype), *maps, saved, BACKWARD[name], cut)
    pairs = zip(values, truth * len(cuts), strict=True)
    return max(error(value, true.detach()) for value, true in pairs)


def checks() -> dict[tuple[str, str], float | str]:
    """The error of each candidate, or what went wrong; all are compiled after it."""
    jobs = [("forward", name) for name in FORWARD] + [("backward", name) for name in BACKWARD]
    if interpreted():  # which is slow: one of each kind
        forward, *_ = FORWARD
        first, *_, last = BACKWARD
        few = [("forward", forward), ("backward", first), ("backward", last)]
        return {job: check(*job) for job in few}
    found: dict[tuple[str, str], float | str] = {}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        futures = {job: pool.submit(check, *job) for job in jobs}
        for job, future in futures.items():
            try:
                found[job] = future.result()
            except Exception as failure:  # of Triton, of the driver, or of memory
                found[job] = f"{type(failure).__name__}: {failure}"[:300]
    return found


def right(answer: float | str) -> bool:
    """Whether `checks` found a candidate to compute the right values."""
    return isinstance(answer, float) and answer < WRONG


def scans(
    shape: tuple[int, int, int], good: set[tuple[str, str]]
) -> Iterator[tuple[str, str, int, Callable[[], object]]]:
    """(what, candidate, segments or 0 for as many as the shape chooses, the call)"""
    batch, side, _ = shape
    inputs = [tensor.detach() for tensor in model_inputs(*shape, torch.bfloat16, device())]
    gy = torch.randn_like(inputs[0])
    for name, tile in FORWARD.items():
        if ("forward", name) in good:
            yield "forward", name, 0, partial(triton.forward, *inputs, True, tile)
    _, saved = triton.forward(*inputs, True, next(iter(FORWARD.values())))
    for name, some in BACKWARD.items():
        cuts = [0]
        if isinstance(some, TwoScans) and batch > 1 and side**2 >= LONG:
            cuts = [1, 2]
        for cut in cuts:
            if ("backward", name) in good:
                yield (
                    "backward",
                    name,
                    cut,
                    partial(triton.backward, gy, *inputs, saved, some, cut),
                )


def weights(
    shape: tuple[int, int, int],
) -> Iterator[tuple[str, float, Callable[[], Tensor]]]:
    """(way, its error, the call) of the gradient of the dt projection's weight."""
    batch, side, channels = shape
    rank, pixels = -(-channels // 32), batch * side**2
    gdt = torch.randn(4, pixels, channels, device=device()).bfloat16()
    step = torch.randn(pixels, 4, rank + 32, device=device()).bfloat16()  # and B and C beside it
    factors = step.transpose(0, 1)[..., :rank]
    some = gdt[..., :8].double().transpose(1, 2) @ factors.double()

    def way(parts: int, multiple: int) -> Tensor:
        padding = -rank % multiple
        padded = torch.nn.functional.pad(factors, (0, padding)) if padding else factors
        return operator.weight_gradient(gdt, padded, parts)[..., :rank]

    for multiple in (1, 8, 16):
        for parts in (1, 8, 32, 128):
            if pixels % parts == 0:
                run = partial(way, parts, multiple)
                name = f"{parts} parts" + (f", rank in {multiple}s" if multiple > 1 else "")
                yield name, error(run()[:, :8], some), run


def host_seconds(function: Callable[[], object]) -> float:
    """The time between calls, host and GPU, whichever is slower."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(HOST_ROUNDS):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / HOST_ROUNDS


def timed(calls: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, dict[str, Any]]:
    """The times of each call; in the interpreter it only runs them."""
    if interpreted():
        for call in calls.values():
            call()
        return {key: {"seconds": None} for key in calls}
    return interleaved_on_gpu(calls, rounds)


def stage_rows(
    shape: tuple[int, int, int], found: dict[tuple[str, str], float | str], rounds: int
) -> list[dict[str, Any]]:
    """The rows of a stage: its forward and backward candidates, and the weight's gradient."""
    place = dict(zip(("batch", "side", "channels"), shape, strict=True))
    good = {job for job, answer in found.items() if right(answer)}
    calls = {(what, name, cut): call for what, name, cut, call in scans(shape, good)}
    rows = []
    for what in ("forward", "backward"):
        some = {key: call for key, call in calls.items() if key[0] == what}
        for (_, name, cut), times in timed(some, rounds).items():
            row = place | {"what": what, "candidate": name, "segments": cut}
            rows.append(row | {"error": found[what, name], **times})
            if shape[0] == 1 and not interpreted():
                rows[-1]["host_seconds"] = host_seconds(some[what, name, cut])
    if shape[0] > 1 or interpreted():
        ways = {name: (wrong, call) for name, wrong, call in weights(shape)}
        for name, times in timed({name: way[1] for name, way in ways.items()}, rounds).items():
            row = place | {"what": "weight", "candidate": name, "error": ways[name][0]}
            rows.append(row | times)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    seconds, host = row["seconds"], row.get("host_seconds")
    shape = f"{row['batch']}, {row['side']}, {row['channels']}"
    ms = f"{1e3 * seconds:9.4f}" if seconds else f"{'-':>9}"
    between = f"{1e3 * host:9.4f}" if host else f"{'':>9}"
    cut = row.get("segments") or ""
    return (
        f"{shape:14}{row['what']:9}{row['candidate']:44}{cut!s:>3}{ms}{between} {row['error']:.0e}"
    )


def run(output: Path = OUTPUT, rounds: int = 10) -> None:
    """Check, time and print all candidates; write them to `output`."""
    began = time.monotonic()
    if interpreted():
        triton_tiles.SPAN = 4  # the interpreter takes seconds for a span of 32 steps
    else:
        need_cuda("scan_candidates")
    found = checks()
    wrong = {job: answer for job, answer in found.items() if not right(answer)}
    for (what, name), answer in wrong.items():
        print(f"not timed: {what} {name}: {answer}")
    results: dict[str, Any] = {
        "gpu": None if interpreted() else gpu(),
        "rounds": rounds,
        "seconds_to_compile": time.monotonic() - began,
        "not_timed": {f"{what} {name}": answer for (what, name), answer in wrong.items()},
        "complete": False,
        "rows": [],
    }
    shapes = [(batch, *stage) for batch in BATCHES for stage in STAGES]
    if interpreted():
        shapes = [TINY]
    print(f"{'batch,side,ch':14}{'':9}{'candidate':44}{'cut':>3}{'ms':>9}{'host ms':>9} error")
    for shape in shapes:
        if time.monotonic() - began > LIMIT * 0.9 and not interpreted():
            break
        rows = stage_rows(shape, found, rounds)
        results["rows"] += rows
        print(*sorted(line(row) for row in rows), sep="\n", flush=True)
        save(output, results)
    else:
        results["complete"] = True
    write(output, results)


if __name__ == "__main__":
    run()
