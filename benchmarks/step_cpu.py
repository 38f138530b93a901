"""Seconds and memory of a whole training step of VM-UNet on a CPU.

Run it on an idle machine, from the repository's root:

    python -m benchmarks.step_cpu

A step is forward, loss, backward and AdamW at the paper's full width (27.4 M parameters) and
image size, with a batch of 2. `reference` runs the scan as a loop in plain PyTorch, `cpu` with
the compiled backend; nothing else differs, and both run as the stages do (`use_processor`). Steps
of the two alternate, and their medians are compared. Peak memory is measured in a separate process
for each backend. The reference takes about 10 GB, and minutes.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable

import torch

from benchmarks.measure import arguments, interleaved, write
from vmunet import VMUNet
from vmunet.scan import backend
from vmunet.training.losses import bce_dice
from vmunet.training.processor import use_processor

BACKENDS = ("reference", "cpu")
WARM_UP = 2  # steps: the first one claims memory from the system


def training_step(batch: int, size: int) -> Callable[[str], None]:
    """A function from a backend's name that runs one step with that backend, on one model."""
    torch.manual_seed(0)
    model = VMUNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = 255 * torch.rand(batch, 3, size, size)
    masks = (torch.rand(batch, 1, size, size) > 0.5).float()

    def step(name: str) -> None:
        with backend(name):
            loss = bce_dice(model(images), masks, "probabilities")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


def peak_memory(name: str, options: list[str]) -> int:
    """Bytes that a process needs to train with this backend."""
    command = [sys.executable, "-m", "benchmarks.step_cpu", "--memory-of", name, *options]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def main() -> None:
    parser = arguments(__doc__, "step_cpu.json", rounds=7)
    parser.add_argument("--batch", type=int, default=2, help="images (default: 2)")
    parser.add_argument("--size", type=int, default=256, help="of an image (default: 256)")
    parser.add_argument(
        "--memory-of",
        choices=BACKENDS,
        help="only run a few steps with this backend, and print the peak memory in bytes",
    )
    options = parser.parse_args()
    use_processor(options.threads)
    step = training_step(options.batch, options.size)

    if options.memory_of:
        for _ in range(WARM_UP):
            step(options.memory_of)
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes or kibibytes
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
        return

    same = [f"--{name}={getattr(options, name)}" for name in ("threads", "batch", "size")]
    memory = {name: peak_memory(name, same) for name in BACKENDS}
    runs = {name: lambda name=name: step(name) for name in BACKENDS}
    for _ in range(WARM_UP - 1):  # `interleaved` adds one
        for run in runs.values():
            run()
    seconds = interleaved(runs, options.rounds)
    faster = seconds["reference"] / seconds["cpu"]
    for name in BACKENDS:
        print(f"{name:10}{seconds[name]:7.2f} s a step{memory[name] / 1e9:7.2f} GB")
    print(f"the cpu backend is {faster:.1f} times as fast")
    write(
        options.output,
        {
            "threads": options.threads,
            "batch": options.batch,
            "size": options.size,
            "seconds": seconds,
            "peak_bytes": memory,
            "faster": faster,
        },
    )


if __name__ == "__main__":
    main()
