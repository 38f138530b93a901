"""The time that a sweep needs beside its cells: start, width, record, skipped cells.

    python -m benchmarks.sweep

Makes DVC projects in a temporary folder, whose trainings are one line of shell. Sweeps them with
`vmunet sweep`, with the servers of `vmunet ui` and without them:

- `start`: from the command's start to the first cell's;
- `wide`: 64 cells of `sleep 2`, 8 in parallel; 16 s of it are sleep;
- `cell`: the time of a cell that does nothing, one at a time, without `start`: its process,
  Prefect, the record;
- `skip`: a second sweep of 1,000 cells that are all up to date.

Run it on an idle machine, because the load of other programs is in the result.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import arguments, write

VMUNET = Path(sys.executable).with_name("vmunet")
PORTS = ("5917", "4917")

PROJECT = """\
stages:
  train:
    matrix: {{seed: [{seeds}]}}
    cmd: >-
      date +%s.%N >> starts.txt && {command} &&
      mkdir -p runs && echo ${{item.seed}} > runs/${{item.seed}}
    deps: [source.txt]
    outs: ["runs/${{item.seed}}"]
"""


def make_project(folder: Path, cells: int, command: str) -> Path:
    """A DVC repository with this many trainings, which depend on one file."""
    folder.mkdir()
    (folder / "source.txt").write_text("source\n")
    seeds = ", ".join(map(str, range(cells)))
    (folder / "dvc.yaml").write_text(PROJECT.format(seeds=seeds, command=command))
    for line in ("git init -q", "dvc init -q"):
        subprocess.run(line.split(), cwd=folder, check=True)
    return folder


def swept(project: Path, parallel: int, servers: Path | None) -> tuple[float, float]:
    """Seconds of a sweep, and the seconds before its first cell (all, if no cell ran)."""
    (project / ".sweep").mkdir(exist_ok=True)
    if servers:
        shutil.copy(servers, project / ".sweep" / "ui.json")
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    began = time.time()
    command = [VMUNET, "sweep", "--parallel", str(parallel), "--gpus", "none"]
    subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL, env=environment)
    ended = time.time()
    starts = project / "starts.txt"
    first = float(starts.read_text().split()[0]) if starts.exists() else ended
    starts.unlink(missing_ok=True)
    return ended - began, first - began


def is_clean(project: Path) -> bool:
    """Whether DVC has a record of every stage."""
    done = subprocess.run(["dvc", "status"], cwd=project, capture_output=True, text=True)
    return "up to date" in done.stdout


@contextmanager
def servers(folder: Path) -> Iterator[Path]:
    """Run `vmunet ui` while the block runs; yields the file with its addresses."""
    folder.mkdir()
    command = [VMUNET, "ui", "--mlflow-port", PORTS[0], "--prefect-port", PORTS[1]]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    addresses = folder / ".sweep" / "ui.json"
    try:
        while not addresses.exists():
            if process.poll() is not None:
                raise SystemExit("the servers did not start")
            time.sleep(0.2)
        time.sleep(5)  # their own start-up work
        yield addresses
    finally:
        process.terminate()
        process.wait()


def measure(folder: Path, addresses: Path | None) -> dict[str, float | bool]:
    """Measure with the servers or without them."""
    kind = "with" if addresses else "without"
    wide = make_project(folder / f"wide-{kind}", 64, "sleep 2")
    seconds, start = swept(wide, 8, addresses)
    cells = make_project(folder / f"cells-{kind}", 64, "true")
    alone, first = swept(cells, 1, addresses)
    return {
        "start_seconds": start,
        "wide_seconds": seconds - start,
        "wide_of_16_seconds": (seconds - start) / 16,
        "cell_seconds": (alone - first) / 64,
        "all_recorded": is_clean(wide) and is_clean(cells),
    }


def main() -> None:
    parser = arguments(__doc__, "sweep.json", rounds=None, threads=False)
    parser.add_argument("--skip", type=int, default=1000, help="cells to skip (default: 1000)")
    options = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result: dict[str, object] = {"load_before": load[0]}
        result["without_servers"] = measure(folder, None)
        many = make_project(folder / "many", options.skip, "true")
        result["made_seconds"] = swept(many, 4, None)[0]
        result["skip_seconds"] = swept(many, 4, None)[0]
        with servers(folder / "servers") as addresses:
            result["with_servers"] = measure(folder, addresses)
            result["skip_seconds_with_servers"] = swept(many, 4, addresses)[0]
        result["load_after"] = os.getloadavg()[0]
    for name, value in result.items():
        print(name, value)
    write(options.output, result)


if __name__ == "__main__":
    main()
