"""Seconds that a cell costs beyond its arithmetic: processes, imports, DVC, MLflow.

    python -m benchmarks.cell_overhead

Trains, evaluates and describes the first cells of the demo in a temporary clone, one cell at a
time: as forks of a sweep's warm process (`sweep`), and each stage by its own `dvc repro` (`repro`).
The result is the median over the cells of the seconds on the clock beyond the epochs. The
evaluation of the test images is in it, so it is an upper limit. Run it on an idle machine.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.demo import beyond, copy_sources, dvc, epochs_of, vmunet
from benchmarks.measure import arguments, write
from pipeline.config.params import load_params
from pipeline.config.runs import Run, runs


def beyond_by_repro(folder: Path, run: Run) -> float:
    """Seconds beyond the epochs of a run whose stages are run one by one, again."""
    shutil.rmtree(folder / ".resume", ignore_errors=True)  # otherwise the training would resume
    began = time.perf_counter()
    for stage in ("train", "evaluate", "model_card"):
        dvc(folder, "repro", "--quiet", "--force", "--single-item", f"{stage}@{run.name}")
    return time.perf_counter() - began - epochs_of(folder, run)


def main() -> None:
    options = arguments(__doc__, "cell_overhead.json", rounds=3, threads=False).parse_args()
    with tempfile.TemporaryDirectory(prefix="cells-") as name:
        folder = copy_sources(Path(name, "clone"))
        chosen = runs(load_params(folder))[: options.rounds]
        cells = [word for run in chosen for word in ("--cells", run.name)]
        vmunet(folder, "sweep", "--parallel", "1", *cells)
        seconds = {
            "sweep": [beyond(folder, run) for run in chosen],
            "repro": [beyond_by_repro(folder, run) for run in chosen],
        }
    median = {name: round(statistics.median(values), 2) for name, values in seconds.items()}
    print(f"seconds of a cell beyond its epochs: {median}")
    write(options.output, {"cells": [run.name for run in chosen], "beyond": median})


if __name__ == "__main__":
    main()
