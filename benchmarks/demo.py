"""Where the seconds of the demo go.

    python -m benchmarks.demo [--rounds 3]

Copies the sources into a temporary folder and runs there what `make tables` runs after the set-up,
from nothing to the report. Run it on an idle machine. The result:

- `total`: seconds on the clock, of each round;
- `stages`: for each kind of stage the number, the sum and the longest of their seconds (several run
  at once, so the sum is larger than the total); of the median round;
- `beyond`: seconds that a cell takes beyond its epochs, which is the median over the cells of the
  seconds of training, evaluation and model card, less those of the epochs. The evaluation's
  arithmetic is in it, so it is an upper limit;
- `no_op`: seconds of the same command when everything is up to date.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import arguments, write
from pipeline.config.params import load_params
from pipeline.config.runs import Run, runs

ROOT = Path(__file__).resolve().parents[1]
VMUNET = "import sys; from vmunet.cli import main; sys.exit(main())"


def copy_sources(folder: Path) -> Path:
    """The files that git knows, in a new clone without their results."""
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-mo", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.split("\n"):  # changed since the last commit
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def vmunet(folder: Path, *words: str) -> float:
    """Seconds of a command of `vmunet` in a clone, with that clone's code."""
    return call(folder, sys.executable, "-c", VMUNET, *words)


def dvc(folder: Path, *words: str) -> float:
    """Seconds of a command of DVC in a clone."""
    return call(folder, "dvc", *words)


def call(folder: Path, *command: str) -> float:
    """Seconds of a command.

    Raises:
        CalledProcessError: it fails.
    """
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return time.perf_counter() - began


def stage_seconds(folder: Path) -> dict[str, float]:
    """The seconds of each stage in the clone's last sweep, from its start to its record."""
    return json.loads((folder / ".sweep" / "seconds.json").read_text())


def beyond(folder: Path, run: Run) -> float:
    """Seconds of a run's stages beyond its epochs."""
    seconds = stage_seconds(folder)
    stages = [name for name in seconds if name.partition("@")[2] == run.name]
    return sum(seconds[name] for name in stages) - epochs_of(folder, run)


def epochs_of(folder: Path, run: Run) -> float:
    """Seconds of a run's epochs."""
    return json.loads((folder / run.folder / "run.json").read_text())["seconds"]


def measure() -> dict[str, Any]:
    """One demo from nothing."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = copy_sources(Path(name, "clone"))
        total = vmunet(folder, "sweep")
        seconds = stage_seconds(folder)
        kinds: dict[str, list[float]] = {}
        for stage, value in seconds.items():
            kinds.setdefault(stage.partition("@")[0], []).append(value)
        declared = runs(load_params(folder))
        return {
            "total": round(total, 1),
            "stages": {
                kind: {"n": len(v), "sum": round(sum(v), 1), "longest": max(v)}
                for kind, v in sorted(kinds.items(), key=lambda item: -sum(item[1]))
            },
            "beyond": round(statistics.median(beyond(folder, run) for run in declared), 2),
            "no_op": round(vmunet(folder, "sweep"), 1),
        }


def main() -> None:
    options = arguments(__doc__, "demo.json", rounds=3, threads=False).parse_args()
    rounds = sorted((measure() for _ in range(options.rounds)), key=lambda r: r["total"])
    median = rounds[len(rounds) // 2]
    result = median | {"total": [r["total"] for r in rounds], "no_op": [r["no_op"] for r in rounds]}
    for kind, values in result["stages"].items():
        print(f"{kind:22} {values['n']:3}  {values['sum']:7.1f} s")
    print(f"demo: {result['total']} s; a cell beyond its epochs: {result['beyond']} s")
    write(options.output, result)


if __name__ == "__main__":
    main()
