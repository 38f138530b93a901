"""What the benchmarks share: interleaved timing, a description of the machine, results as JSON."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results"


def arguments(description: str, result: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; `result` is the file it writes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"timed repetitions (default: {rounds})"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS / result, help=f"(default: results/{result})"
    )
    return parser


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each function.

    Every function is called once to warm up. Then each round calls all of them in turn, so that
    a slow moment of the machine meets them all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in tqdm(range(rounds), disable=None, leave=False):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def machine() -> dict[str, Any]:
    """Processor, cores, system, versions, date: what a number means nothing without."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return {
        "date": datetime.date.today().isoformat(),
        "processor": name,
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numba", "numpy")},
        },
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results with the machine's description, replacing the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    os.replace(partial, path)
    print(f"written: {path}")
