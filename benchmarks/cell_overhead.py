"""Seconds that a cell costs beyond its arithmetic: processes, imports, DVC, MLflow.

Run it on an idle machine, from the repository's root, after `make tables`:

    python -m benchmarks.cell_overhead

Trains and evaluates one run of the active grid again, each by its own `dvc repro`, and subtracts
the time that the epochs took. The rest includes the evaluation of some test images, so it is an
upper limit. DVC's record of the run is written again.
"""

import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.measure import arguments, write
from pipeline.config.params import load_params
from pipeline.config.runs import Run, runs


def seconds_of(stage: str) -> float:
    """Wall time of running one stage again through DVC."""
    began = time.perf_counter()
    command = ["dvc", "repro", "--quiet", "--force", "--single-item", stage]
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def measure(run: Run) -> dict[str, float]:
    """Seconds of training, of its epochs, and of evaluation."""
    shutil.rmtree(".resume", ignore_errors=True)  # otherwise training would resume
    train = seconds_of(f"train@{run.name}")
    epochs = json.loads((run.folder / "run.json").read_text())["seconds"]
    evaluate = seconds_of(f"evaluate@{run.name}")
    return {"train": train, "epochs": epochs, "evaluate": evaluate}


def main() -> None:
    parser = arguments(__doc__, "cell_overhead.json", rounds=3)
    options = parser.parse_args()
    params = load_params(Path())
    run = runs(params)[0]
    rounds = [measure(run) for _ in range(options.rounds)]
    median = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    beyond = median["train"] - median["epochs"] + median["evaluate"]
    print(f"{run.name}: {beyond:.1f} s beyond its {median['epochs']:.1f} s of epochs")
    write(
        options.output,
        {"run": run.name, "profile": params.profile_name, "seconds": median, "beyond": beyond},
    )


if __name__ == "__main__":
    main()
