"""Speed of the 2D selective scan on a CPU, at the shapes of VM-UNet's stages.

Run it on an idle machine, from the repository's root:

    python -m benchmarks.scan_cpu

`reference` is the fastest loop in plain PyTorch that we know (vmunet/scan/reference.py), `cpu` is
the compiled backend. For each stage of the full-width model the table shows milliseconds for the
output alone and for output and gradients, medians over rounds in which the backends alternate.

The exponential limits the speed of a scan on a CPU: there is one for each pixel, direction, channel
and state, and once more in the backward pass, which recomputes the states. The benchmark measures
how many exponentials per second this machine can do when it does nothing else; `of limit` is the
part of that rate that the cpu backend reaches.
"""

import numba
import numpy as np
import torch

from benchmarks.measure import arguments, interleaved, write
from vmunet.scan import backend, cpu_lanes, ss2d

STATES = 16
STAGES = ((64, 192), (32, 384), (16, 768), (8, 1536))  # side and channels, for 256 x 256 images
VECTORS = 4_000_000  # vectors of exponentials in the measurement of their rate


@numba.njit
def exponentials(values: np.ndarray, vectors: int) -> None:
    """Sum 2**x over vectors that stay in registers, in four chains that do not depend on others."""
    a, b = cpu_lanes.load(values, (0,)), cpu_lanes.load(values, (16,))
    c, d = cpu_lanes.load(values, (32,)), cpu_lanes.load(values, (48,))
    sum_a = sum_b = sum_c = sum_d = a
    for _ in range(vectors // 4):
        sum_a, a = sum_a + cpu_lanes.exp2(a), a * 0.999
        sum_b, b = sum_b + cpu_lanes.exp2(b), b * 0.999
        sum_c, c = sum_c + cpu_lanes.exp2(c), c * 0.999
        sum_d, d = sum_d + cpu_lanes.exp2(d), d * 0.999
    cpu_lanes.store(values, (0,), sum_a + sum_b + sum_c + sum_d)


def stage_inputs(batch: int, side: int, channels: int) -> list[torch.Tensor]:
    """Inputs as in a newly initialised model; see `vmunet.scan.ss2d` for the shapes."""
    image = (batch, side, side)
    delta = torch.logspace(-3, -1, channels).repeat(4, 1)
    inputs = (
        torch.randn(*image, channels),
        0.1 * torch.randn(4, *image, channels).permute(1, 2, 3, 0, 4),
        -torch.arange(1.0, STATES + 1).repeat(4, channels, 1),
        torch.randn(*image, 4, STATES),
        torch.randn(*image, 4, STATES),
        torch.ones(4, channels),
        delta + torch.log(-torch.expm1(-delta)),
    )
    return [tensor.requires_grad_() for tensor in inputs]


def output(name: str, inputs: list[torch.Tensor]) -> None:
    with backend(name), torch.no_grad():
        ss2d(*inputs)


def gradients(name: str, inputs: list[torch.Tensor]) -> None:
    with backend(name):
        y = ss2d(*inputs)
    torch.autograd.grad(y, inputs, torch.ones_like(y))


def main() -> None:
    parser = arguments(__doc__, "scan_cpu.json", rounds=7)
    parser.add_argument("--batch", type=int, default=2, help="images (default: 2)")
    parser.add_argument(
        "--stages", type=int, nargs="+", default=[0, 1, 2, 3], help="(default: all, 0 1 2 3)"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    values = np.full(64, -1.0, np.float32)
    timed = interleaved({"exp2": lambda: exponentials(values.copy(), VECTORS)}, options.rounds)
    rate = cpu_lanes.LANES * VECTORS / timed["exp2"] * options.threads
    print(f"{rate / 1e9:.1f} billion exponentials a second on {options.threads} thread(s)\n")
    print(f"{'':24}{'output (ms)':^32}{'output and gradients (ms)':^32}")
    columns = f"{'reference':>10}{'cpu':>7}{'faster':>7}{'of limit':>9}"
    print(f"{'batch, side, channels':24}{columns}{columns}")

    rows = []
    for side, channels in (STAGES[stage] for stage in options.stages):
        inputs = stage_inputs(options.batch, side, channels)
        row = {"batch": options.batch, "side": side, "channels": channels, "states": STATES}
        line = f"{f'{options.batch}, {side}, {channels}':24}"
        count = options.batch * side**2 * channels * 4 * STATES
        for what, passes in ((output, 1), (gradients, 2)):
            runs = {
                name: lambda name=name, what=what, inputs=inputs: what(name, inputs)
                for name in ("reference", "cpu")
            }
            seconds = interleaved(runs, options.rounds)
            faster = seconds["reference"] / seconds["cpu"]
            limit = passes * count / rate / seconds["cpu"]
            row[what.__name__] = {"seconds": seconds, "faster": faster, "of_limit": limit}
            reference, cpu = (1e3 * seconds[name] for name in ("reference", "cpu"))
            line += f"{reference:10.1f}{cpu:7.1f}{faster:6.1f}x{limit:9.0%}"
        print(line, flush=True)
        rows.append(row)
    write(
        options.output,
        {"threads": options.threads, "exponentials_per_second": rate, "stages": rows},
    )


if __name__ == "__main__":
    main()
