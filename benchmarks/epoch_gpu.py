"""Seconds of an epoch, taken apart, and images per second, through the training loop itself.

Run it on an idle GPU, from the repository's root:

    python -m benchmarks.epoch_gpu                          # made-up arrays of ISIC17's shape
    python -m benchmarks.epoch_gpu --arrays data/arrays/isic17-256/paper
    python -m benchmarks.epoch_gpu --quick                  # tiny, also on a processor

Each kind of steps trains VM-UNet at the paper's full width with the paper's protocol: augmented
images from worker processes, selection on the test images, a state that is saved. The first epoch
is not counted: in it workers start and steps are captured. The parts of an epoch are:

    data        the host waits for a batch; the GPU may still work on earlier steps
    step        the rest of the pass over the training images, until its losses are read
    selection   the loss on the selection images
    saving      the state of the epoch before
    rest        copies of the best weights, and the loop's own work

Images per second are the training images divided by the median of whole epochs. Made-up arrays are
1,500 and 650 noisy discs of 256 px. No GPU has run this yet.
"""

import argparse
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import arguments, gpu, need_cuda, quartiles, save, write
from vmunet import VMUNet
from vmunet.data.arrays import ArrayDataset
from vmunet.data.augment import Augment
from vmunet.protocols import PAPER
from vmunet.settings import TrainSettings
from vmunet.training.capture import KINDS, STEP
from vmunet.training.loop import Progress, Row, train
from vmunet.training.losses import training_loss

ISIC17 = {"train": 1500, "test": 650}  # images
QUICK = {"train": 10, "test": 5}
SEED = 42
PARTS = ("data", "step", "selection", "saving", "rest")
TINY = {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}


def write_arrays(folder: Path, counts: dict[str, int], size: int) -> None:
    """Arrays as `vmunet.data.arrays` reads them: a disc on noise in each image."""
    random = np.random.default_rng(0)
    rows = np.arange(size)
    for subset, count in counts.items():
        (folder / subset).mkdir(parents=True)
        images = random.integers(0, 128, (count, size, size, 3), np.uint8)
        masks = np.zeros((count, size, size), np.uint8)
        for image, mask in zip(images, masks, strict=True):
            y, x, radius = random.uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.3)) * size
            disc = (rows[:, None] - y) ** 2 + (rows - x) ** 2 < radius**2
            image[disc] += 100
            mask[disc] = 255
        np.save(folder / subset / "images.npy", images)
        np.save(folder / subset / "masks.npy", masks)
        (folder / subset / "ids.txt").write_text("".join(f"disc{i}\n" for i in range(count)))


def measure(
    kind: str,
    arrays: Path,
    settings: TrainSettings,
    model: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Train with one kind of steps and return its row."""
    os.environ[STEP] = kind
    images = ArrayDataset(arrays, "train", Augment(PAPER, SEED), SEED)
    parts: list[dict[str, float]] = []  # after each epoch, summed up from the start
    marks: list[float] = []
    progress = Progress()

    def on_start(started: Progress) -> None:
        nonlocal progress
        progress = started

    def on_epoch(row: Row) -> None:
        marks.append(time.perf_counter())
        parts.append(dict(progress.parts))

    torch.manual_seed(SEED)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as temporary:
        train(
            VMUNet(**model),
            images,
            ArrayDataset(arrays, "test"),
            training_loss(1, PAPER.loss_input),
            settings,
            PAPER,
            SEED,
            device,
            Path(temporary, "state.pt"),
            on_start,
            on_epoch,
            label=kind,
        )
    epochs = [b - a for a, b in pairwise(marks)]
    spent = {
        part: statistics.median(b[part] - a[part] for a, b in pairwise(parts)) for part in parts[0]
    }
    whole = quartiles(epochs)
    return {
        "asked": kind,
        "kind": progress.step,
        "step_seconds": progress.step_seconds,
        **whole,
        "parts": {**spent, "rest": max(0.0, whole["seconds"] - sum(spent.values()))},
        "images_per_second": len(images) / whole["seconds"],
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    parts = "".join(f"{row['parts'][part]:11.3f}" for part in PARTS)
    return f"{row['kind']:10}{row['images_per_second']:10.1f}{row['seconds']:9.3f}{parts}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = arguments(__doc__, "epoch_gpu.json", rounds=4, threads=False)
    parser.add_argument("--arrays", type=Path, help="a folder with train/ and test/")
    parser.add_argument("--batch", type=int, default=32, help="images (default: 32, the paper's)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16", help="(bf16)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS[1:], metavar="KIND", help="(%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model, two epochs that count")
    return parser


def main() -> None:
    options = parser().parse_args()
    if not options.quick:
        need_cuda("epoch_gpu")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds, batch = (2, 4) if options.quick else (options.rounds, options.batch)
    settings = TrainSettings(epochs=rounds + 1, batch_size=batch, precision=options.precision)
    kinds = options.kinds if device.type == "cuda" else ["eager"]
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {"gpu": gpu() if device.type == "cuda" else None}
    results |= {"quick": options.quick, "batch": batch, "precision": options.precision}
    with tempfile.TemporaryDirectory() as temporary:
        arrays = options.arrays
        if arrays is None:
            arrays = Path(temporary)
            write_arrays(arrays, QUICK if options.quick else ISIC17, 32 if options.quick else 256)
        results["arrays"] = str(options.arrays or "made up")
        for name, subset in (("train_images", "train"), ("selection_images", "test")):
            results[name] = len(ArrayDataset(arrays, subset))
        print(f"{'steps':10}{'images/s':>10}{'epoch':>9}" + "".join(f"{p:>11}" for p in PARTS))
        for kind in kinds:
            rows.append(measure(kind, arrays, settings, TINY if options.quick else {}, device))
            print(line(rows[-1]), flush=True)
            save(options.output, {**results, "rows": rows})
    write(options.output, {**results, "rows": rows})


if __name__ == "__main__":
    main()
