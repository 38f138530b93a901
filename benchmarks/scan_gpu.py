"""Speed of the 2D selective scan on a CUDA device, at the shapes of VM-UNet's stages.

Run it on an idle GPU, from the repository's root:

    python -m benchmarks.scan_gpu            # --quick for a smoke run of a minute
    python -m benchmarks.scan_gpu --candidates   # every tile of our own kernels, in 100 seconds

The second is `benchmarks.scan_candidates`; what follows is about the first.

Rows: the four stages of the full-width model at 256 x 256 with 32 images and with 1, and the
first stage of one 1024 x 1024 image; float32 and bfloat16; the output alone, and output and
gradients. Columns:

`triton` is our kernel. `published` is the work of VMamba v0 and VM-UNet after the projections: four
copies of the image in float32, mamba-ssm's CUDA scan over them, and the merge (without the
projections, which both sides need); null if mamba-ssm is not installed. `reference` is the
definition in plain PyTorch, whose time is mostly the launching of kernels; only for images of up
to 1,024 pixels.

`floor` is the least time for the same work, which no better kernel can go below. It is the larger
of

  bytes divided by bandwidth: a pass reads its inputs once and writes its outputs once. The backward
    pass reads the inputs again and the output's gradient, and writes a gradient for each input.
    Tensors that a kernel saves for the backward pass are not counted.
  exponentials divided by their rate: one for each pixel, direction, channel and state, and once
    more in the backward pass, which computes the states again. Softplus and its gradient, about two
    more for each pixel, direction and channel, are not counted. This limit does not hold for a
    kernel that computes exponentials by other means than the special-function units.

Both limits are measured: the bandwidth by a large copy, bytes read plus bytes written; the rate by
a kernel that does nothing but exponentials. The rate that follows from the hardware's numbers (16
per clock and multiprocessor, at the highest clock) is beside it.

Times are medians of CUDA events over rounds in which the variants alternate; low and high in the
JSON file are quartiles. The L2 cache is flushed before each call, and the gaps between launches
are hidden, so small images look better here than in a program that waits for each call. Memory is
the memory that a call claims beyond its inputs, its results included. Before anything is timed, our
output and gradients, and the published output, are compared with the reference in float64.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import (
    arguments,
    gpu,
    interleaved_on_gpu,
    need_cuda,
    number,
    nvidia_smi,
    peak_on_gpu,
    save,
    write,
)
from benchmarks.published import scan_copies
from benchmarks.scan_cpu import STAGES, STATES, stage_inputs
from vmunet.errors import InputError
from vmunet.scan import backend, ss2d
from vmunet.scan.mamba import Scan, cross_merge, cross_scan, cuda_scan, in_time_order

BATCHES = (32, 1)
LARGE = (1, 256, 192)  # batch, side, channels: the first stage of one 1024 x 1024 image
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = {"output": 1, "gradients": 2}  # the number of times that exponentials are computed
REFERENCE_PIXELS, REFERENCE_ROUNDS = 1024, 3
EXPONENTIALS_PER_CLOCK = 16  # of a multiprocessor, compute capability 7.0 to 10.0
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the norm


def model_inputs(
    batch: int, side: int, channels: int, dtype: torch.dtype, device: str = "cuda"
) -> list[Tensor]:
    """The arguments of `ss2d` as the model gives them: B and C are slices of the projection."""
    with torch.device(device):
        x, dt, A, B, C, D, dt_bias = (t.detach() for t in stage_inputs(batch, side, channels))
    rank = -(-channels // 32)
    step = B.new_zeros(batch, side, side, 4, rank)
    projected = torch.cat((step, B, C), dim=-1).to(dtype)  # (b, h, w, 4, R + 2N)
    _, B, C = projected.split([rank, STATES, STATES], dim=-1)
    inputs = [x.to(dtype), dt.to(dtype), A, B, C, D, dt_bias]
    return [tensor.requires_grad_() for tensor in inputs]


def published_inputs(inputs: list[Tensor]) -> list[Tensor]:
    """The same values in the layout of the published path: channels first, in scan order.

    x (b, d, h, w), dts (b, 4, d, l), A (4d, n), B and C (b, 4, n, l), D and dt_bias (4d).
    """
    x, dt, A, B, C, D, dt_bias = (tensor.detach() for tensor in inputs)
    dts, Bs, Cs = (in_time_order(maps) for maps in (dt, B, C))
    image = x.permute(0, 3, 1, 2).contiguous()
    values = [image, dts, A.flatten(0, 1), Bs, Cs, D.flatten(), dt_bias.flatten()]
    return [tensor.requires_grad_() for tensor in values]


def published(scan: Scan, inputs: list[Tensor]) -> Tensor:
    """Copies, CUDA scan, merge: (b, d, l), float32."""
    x, *others = inputs
    return cross_merge(scan_copies(cross_scan(x), *others, scan), *x.shape[2:])


def ours(name: str, inputs: list[Tensor]) -> Tensor:
    """Our operator with a backend: (b, h, w, d)."""
    with backend(name):
        return ss2d(*inputs)


def one_pass(what: str, scan: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """The function to time: it computes the output alone, or output and all inputs' gradients."""

    def output() -> None:
        with torch.no_grad():
            scan()

    if what == "output":
        return output
    gy = torch.randn_like(scan())

    def gradients() -> None:
        torch.autograd.grad(scan(), inputs, gy)

    return gradients


def errors(batch: int = 2, side: int = 24, channels: int = 96) -> dict[str, Any]:
    """The largest error against float64, divided by the norm.

    For our scan it covers output and gradients, for the published one the output, which shows that
    its inputs hold the same values.
    """
    largest: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        inputs = model_inputs(batch, side, channels, dtype)
        gy = torch.randn_like(inputs[0])
        exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
        y = ss2d(*exact)
        truth = [y, *torch.autograd.grad(y, exact, gy.double())]
        y = ours("triton", inputs)
        values = [y, *torch.autograd.grad(y, inputs, gy)]
        largest[f"triton {name}"] = worst(values, truth)
        scan = cuda_scan()
        if scan is not None and name == "float32":
            y = published(scan, published_inputs(inputs))
            image = truth[0].permute(0, 3, 1, 2).flatten(2)
            largest["published float32"] = worst([y], [image])
    return largest


def worst(values: list[Tensor], truth: list[Tensor]) -> float:
    """Largest ||value - true|| / ||true||; NaN if any is NaN."""
    parts = [((a.double() - b).norm() / b.norm()) for a, b in zip(values, truth, strict=True)]
    return torch.stack(parts).max().item()


def ceilings(rounds: int) -> dict[str, Any]:
    """Bytes and exponentials per second that this device can do when it does nothing else."""
    from benchmarks.exponentials import Exponentials  # imports triton

    device = gpu()
    size = min(2 << 30, device["memory_bytes"] // 8)
    source = torch.randint(256, (size,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    exponentials = Exponentials()
    timed = interleaved_on_gpu({"copy": lambda: target.copy_(source), "exp2": exponentials}, rounds)
    for _ in range(200):  # seconds of work, to read the clock under load
        exponentials()
    clock = number(nvidia_smi("clocks.sm")[0])
    torch.cuda.synchronize()
    highest = device["max_clock_mhz"]
    per_clock = EXPONENTIALS_PER_CLOCK * device["multiprocessors"]
    return {
        "bytes_per_second": 2 * size / timed["copy"]["seconds"],
        "exponentials_per_second": exponentials.count / timed["exp2"]["seconds"],
        "exponentials_per_second_stated": highest and per_clock * highest * 1e6,
        "clock_mhz_under_exponentials": clock,
    }


def floor(inputs: list[Tensor], what: str, limits: dict[str, Any]) -> dict[str, Any]:
    """The least time of a pass, and the limit that causes it; see the module's docstring."""
    x, A = inputs[0], inputs[2]
    bytes_in = sum(tensor.nbytes for tensor in inputs)
    moved = bytes_in + x.nbytes  # the output is of x's type and shape
    if what == "gradients":
        moved += bytes_in + x.nbytes + bytes_in
    count = PASSES[what] * x.numel() * 4 * A.shape[2]
    by = {
        "bytes": moved / limits["bytes_per_second"],
        "exponentials": count / limits["exponentials_per_second"],
    }
    bound = max(by, key=lambda name: by[name])
    return {"seconds": by[bound], "bound": bound, "bytes": moved, "exponentials": count}


def timed(
    scans: Mapping[str, tuple[Callable[[], Tensor], list[Tensor]]], what: str, rounds: int
) -> tuple[dict[str, Any], list[str]]:
    """Seconds and peak memory of each scan; null, and a note, for a scan that fails."""
    results: dict[str, Any] = {}
    notes = []
    runs = {}
    for name, (scan, inputs) in scans.items():
        try:
            run = one_pass(what, scan, inputs)
            run()  # compiles, so that the peak below is that of a normal call
            results[name] = {"peak_bytes": peak_on_gpu(run)}
            runs[name] = run
        except Exception as error:  # out of memory, or Triton's own errors
            results[name] = None
            notes.append(f"{name}: {type(error).__name__}: {error}"[:300])
        torch.cuda.empty_cache()
    for name, seconds in interleaved_on_gpu(runs, rounds).items():
        results[name].update(seconds)
    return results, notes


def measure(
    shape: tuple[int, int, int], dtype: str, what: str, limits: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """Measure one row of the results."""
    batch, side, channels = shape
    inputs = model_inputs(*shape, DTYPES[dtype])
    scans = {"triton": (partial(ours, "triton", inputs), inputs)}
    scan = cuda_scan()
    if scan is not None:
        values = published_inputs(inputs)
        scans["published"] = (partial(published, scan, values), values)
    results, notes = timed(scans, what, rounds)
    if side**2 <= REFERENCE_PIXELS:
        slow = {"reference": (partial(ours, "reference", inputs), inputs)}
        also, more = timed(slow, what, min(rounds, REFERENCE_ROUNDS))
        results, notes = results | also, notes + more
    row: dict[str, Any] = {
        "batch": batch,
        "side": side,
        "channels": channels,
        "states": STATES,
        "dtype": dtype,
        "pass": what,
        "published": None,
        "reference": None,
        **results,
        "floor": floor(inputs, what, limits),
        "notes": notes,
    }
    if row["triton"]:
        row["of_floor"] = row["floor"]["seconds"] / row["triton"]["seconds"]
        if row["published"]:
            row["faster"] = row["published"]["seconds"] / row["triton"]["seconds"]
    return row


def line(row: dict[str, Any]) -> str:
    """A row of the table."""

    def ms(name: str) -> str:
        return f"{1e3 * row[name]['seconds']:11.3f}" if row[name] else f"{'-':>11}"

    def megabytes(name: str) -> str:
        return f"{row[name]['peak_bytes'] / 1e6:10.0f}" if row[name] else f"{'-':>10}"

    shape = f"{row['batch']}, {row['side']}, {row['channels']}"
    faster = f"{row['faster']:7.1f}x" if "faster" in row else f"{'-':>8}"
    of_floor = f"{row['of_floor']:9.0%}" if "of_floor" in row else f"{'-':>9}"
    return (
        f"{shape:14}{row['dtype']:9}{row['pass']:10}{ms('triton')}{ms('published')}{faster}"
        f"{ms('reference')}{ms('floor')} {row['floor']['bound'][:5]:5}{of_floor}"
        f"{megabytes('triton')}{megabytes('published')}"
    )


HEADER = (
    f"{'batch,side,ch':14}{'type':9}{'pass':10}{'triton ms':>11}{'published':>11}{'faster':>8}"
    f"{'reference':>11}{'floor':>11} {'by':5}{'of floor':>9}{'MB triton':>10}{'MB publ.':>10}"
)


def main() -> None:
    parser = arguments(__doc__, "scan_gpu.json", rounds=30, threads=False)
    parser.add_argument("--quick", action="store_true", help="two small stages, batch 1, 3 rounds")
    parser.add_argument(
        "--candidates", action="store_true", help="time our own kernels' tiles instead"
    )
    options = parser.parse_args()
    if options.candidates:
        from benchmarks import scan_candidates

        return scan_candidates.run(options.output.with_name("scan_candidates.json"))
    need_cuda("scan_gpu")
    torch.manual_seed(0)
    rounds = 3 if options.quick else options.rounds
    shapes = [(batch, *stage) for batch in BATCHES for stage in STAGES] + [LARGE]
    if options.quick:
        shapes = [(1, *stage) for stage in STAGES[2:]]

    results: dict[str, Any] = {"gpu": gpu(), "rounds": rounds, "rows": []}
    try:
        results["errors"] = errors()
    except InputError as error:  # no triton, or a device that it does not know
        parser.exit(2, f"{error}\n")
    for name, part in results["errors"].items():
        print(f"{name}: error {part:.1e} of the norm at most")
        if not part < TOLERANCE[name.split()[-1]]:
            sys.exit(f"{name} is wrong: nothing was timed")
    if cuda_scan() is None:
        print("mamba-ssm's CUDA scan is not installed: no published path to compare with")
    limits = results["ceilings"] = ceilings(rounds)
    print(
        f"{limits['bytes_per_second'] / 1e12:.2f} TB/s, "
        f"{limits['exponentials_per_second'] / 1e12:.2f} T exponentials a second "
        f"(stated: {(limits['exponentials_per_second_stated'] or float('nan')) / 1e12:.2f})\n"
    )
    print(HEADER)
    for shape in shapes:
        for dtype in DTYPES:
            for what in PASSES:
                row = measure(shape, dtype, what, limits, rounds)
                results["rows"].append(row)
                save(options.output, results)
                print(line(row), *row["notes"], sep="\n  ", flush=True)
    write(options.output, results)


if __name__ == "__main__":
    main()
