"""Images per second and memory of a whole training step of VM-UNet on a CUDA device.

Run it on an idle GPU, from the repository's root:

    python -m benchmarks.step_gpu                       # all sizes and variants
    python -m benchmarks.step_gpu --sizes 256 --variants fp32 bf16

A step is forward, BCE + Dice, backward and fused AdamW at the paper's full width (27.4 M
parameters). Variants:

    fp32, bf16                      ours; bf16 under autocast
    fp32-compiled, bf16-compiled    the same model through torch.compile, for fixed shapes
    fp32-graph, bf16-graph          the step as one CUDA graph
    fp32-compiled-graph, bf16-compiled-graph
                                    the step of the compiled model as one CUDA graph
    published-fp32, published-bf16  blocks as VMamba v0 and VM-UNet compute them (four copies,
                                    mamba-ssm's CUDA scan, merge, PyTorch's LayerNorm), left out
                                    if mamba-ssm is not installed

Except for the published path's model, the steps are those of a training run
(vmunet.training.capture). All variants train the same parameters with the same optimizer. They are
measured one after the other, then again in reverse order, so that a drift of the device affects
both ends; seconds are medians over both sweeps, by CUDA events, and `sweeps` has the median of
each. A variant that fails, usually because memory is too small, has a row that says so. Peak memory
is the memory of all tensors, parameters and optimizer included. Settings are PyTorch's defaults
(float32 products without TF32, convolutions with it). The graph variants have not been measured on
a GPU yet.
"""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import WARM_UP, arguments, gpu, need_cuda, quartiles, save, write
from benchmarks.published import PublishedVMUNet
from vmunet import VMUNet
from vmunet.protocols import PAPER
from vmunet.scan.mamba import cuda_scan
from vmunet.settings import TrainSettings
from vmunet.training.capture import CapturedStep, record_graph
from vmunet.training.losses import training_loss
from vmunet.training.optimizer import make_optimizer
from vmunet.training.step import EagerStep, compiled

VARIANTS = (
    "fp32",
    "bf16",
    "fp32-compiled",
    "bf16-compiled",
    "fp32-graph",
    "bf16-graph",
    "fp32-compiled-graph",
    "bf16-compiled-graph",
    "published-fp32",
    "published-bf16",
)
Step = Callable[[], object]
Prepare = Callable[[Tensor, Tensor], Step]  # images, masks -> a step on them
Sweep = tuple[list[float], int, str | None]  # seconds of each step, peak bytes, the error


def networks_for(names: Sequence[str]) -> dict[str, Any]:
    """Our model and the others that the variants need, all with the same parameters."""
    torch.manual_seed(0)
    model = VMUNet().cuda()
    networks: dict[str, Any] = {"": model}
    if any("compiled" in name for name in names):
        networks["compiled"] = compiled(model)
    scan = cuda_scan()
    if scan is not None and any("published" in name for name in names):
        published = PublishedVMUNet(scan)
        published.load_state_dict(model.state_dict(keep_vars=True), assign=True)
        networks["published"] = published
    return networks


@torch.no_grad()
def difference(model: nn.Module, other: nn.Module) -> float:
    """The distance between the logits of two models, divided by their norm, in float32."""
    images = 255 * torch.rand(2, 3, 256, 256, device="cuda")
    logits, others = model.eval()(images), other.eval()(images)
    model.train()
    other.train()
    return ((logits - others).norm() / logits.norm()).item()


def training_steps(networks: dict[str, Any], names: Sequence[str]) -> dict[str, Prepare]:
    """A step for each variant with a network, all with the same optimizer."""
    model = networks[""]
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, TrainSettings(), PAPER, device)
    loss = training_loss(1, "probabilities")

    def prepare(
        network: nn.Module, half: bool, is_captured: bool, images: Tensor, masks: Tensor
    ) -> Step:
        settings = TrainSettings(precision="bf16" if half else "fp32")
        eager = EagerStep(network, optimizer, loss, settings, images.device)
        if not is_captured:
            return partial(eager, images, masks)
        return partial(CapturedStep(eager, (images, masks), eager, record_graph), images, masks)

    steps: dict[str, Prepare] = {}
    for name in names:
        kind = next((kind for kind in ("compiled", "published") if kind in name), "")
        if kind in networks:
            steps[name] = partial(prepare, networks[kind], "bf16" in name, "graph" in name)
    return steps


def sweep(prepare: Callable[[], Step], rounds: int) -> tuple[list[float], int]:
    """Seconds of each of `rounds` steps, and the peak of allocated bytes."""
    torch.cuda.reset_peak_memory_stats()
    step = prepare()
    peak = torch.cuda.max_memory_allocated()  # a graph claims its memory when it is captured
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    seconds = [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
    return seconds, max(peak, torch.cuda.max_memory_allocated())


def try_sweep(prepare: Callable[[], Step], rounds: int) -> Sweep:
    """`sweep`, or the error that ended it."""
    try:
        result: Sweep = *sweep(prepare, rounds), None
    except torch.cuda.OutOfMemoryError:
        result = [], 0, "out of memory"
    except Exception as error:  # torch.compile's and Triton's errors are not RuntimeErrors
        result = [], 0, f"{type(error).__name__}: {error}"[:300]
    # Only after the exception is gone, because it holds the tensors of the failed step.
    gc.collect()
    torch.cuda.empty_cache()
    return result


def measure(
    steps: dict[str, Prepare], batch: int, size: int, rounds: int, done: Callable[[dict], None]
) -> None:
    """One row for each variant at one size; `done` is called with each row when it is complete."""
    images = 255 * torch.rand(batch, 3, size, size, device="cuda")
    masks = (torch.rand(batch, 1, size, size, device="cuda") > 0.5).float()
    first = {}
    for name, prepare in steps.items():
        first[name] = try_sweep(partial(prepare, images, masks), rounds)
        done(row(name, batch, size, [first[name]]))
    for name, prepare in reversed(steps.items()):
        if first[name][2] is None:
            again = try_sweep(partial(prepare, images, masks), rounds)
            done(row(name, batch, size, [first[name], again]))


def row(name: str, batch: int, size: int, sweeps: list[Sweep]) -> dict[str, Any]:
    """The row of a variant, from all its sweeps."""
    row: dict[str, Any] = {"variant": name, "batch": batch, "size": size, "seconds": None}
    row["note"] = next((note for _, _, note in sweeps if note), None)
    complete = [(seconds, peak) for seconds, peak, note in sweeps if note is None]
    if complete:
        row.update(quartiles([second for seconds, _ in complete for second in seconds]))
        row["sweeps"] = [quartiles(seconds)["seconds"] for seconds, _ in complete]
        row["images_per_second"] = batch / row["seconds"]
        row["peak_bytes"] = max(peak for _, peak in complete)
    return row


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    head = f"{row['variant']:21}{row['batch']:>4} x {row['size']:<5}"
    if row["seconds"] is None:
        return f"{head}  {row['note']}"
    return (
        f"{head}{row['images_per_second']:10.1f}{1e3 * row['seconds']:11.1f}"
        f"{row['peak_bytes'] / 1e9:9.2f}{len(row['sweeps']):8}"
    )


def main() -> None:
    parser = arguments(__doc__, "step_gpu.json", rounds=10, threads=False)
    parser.add_argument("--batch", type=int, default=32, help="images (default: 32, the paper's)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 384, 512], help="(%(default)s)"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME")
    options = parser.parse_args()
    need_cuda("step_gpu")
    networks = networks_for(options.variants)
    steps = training_steps(networks, options.variants)
    missing = [name for name in options.variants if name not in steps]
    if missing:
        print(f"mamba-ssm's CUDA scan is not installed: left out {', '.join(missing)}")

    rows: dict[tuple[int, str], dict[str, Any]] = {}
    results: dict[str, Any] = {"gpu": gpu(), "rounds_of_a_sweep": options.rounds}
    results["left_out"] = missing
    if "published" in networks:
        apart = results["difference_of_logits"] = difference(networks[""], networks["published"])
        print(f"the published path's logits are {apart:.1e} of the norm from ours")

    def done(row: dict[str, Any]) -> None:
        rows[row["size"], row["variant"]] = row
        save(options.output, {**results, "rows": list(rows.values())})
        print(line(row), flush=True)

    print(
        f"{'variant':21}{'batch, size':12}{'images/s':>10}{'ms a step':>11}{'GB':>9}{'sweeps':>8}"
    )
    for size in options.sizes:
        measure(steps, options.batch, size, options.rounds, done)
    write(options.output, {**results, "rows": list(rows.values())})


if __name__ == "__main__":
    main()
