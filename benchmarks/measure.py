"""Shared by the benchmarks: interleaved timing, a description of the machine, results as JSON."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results"
WARM_UP = 3  # calls on a GPU that are not timed: they compile kernels and claim memory


def arguments(
    description: str, result: str, rounds: int | None, threads: bool = True
) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; `result` is the file that it writes.

    `rounds` is None if nothing is timed, `threads` is False if no processor is timed.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if threads:
        parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    if rounds is not None:
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
    a slow moment of the machine affects them all.
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


def need_cuda(name: str) -> None:
    """End with one line and exit code 2 if no CUDA device is visible."""
    if not torch.cuda.is_available():
        print(f"{name} measures a CUDA device, and none is visible", file=sys.stderr)
        raise SystemExit(2)


def quartiles(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles: a difference within the quartiles is noise."""
    ordered = sorted(seconds)
    return {
        "seconds": statistics.median(ordered),
        "low": ordered[len(ordered) // 4],
        "high": ordered[3 * len(ordered) // 4],
    }


def interleaved_on_gpu(
    functions: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, float]]:
    """The `quartiles` of each function's seconds on the GPU, by CUDA events, in alternating rounds.

    Before each call 4 GiB are written. That removes the inputs from the L2 cache, and meanwhile
    the host issues the call, so that the time between launches is not counted.
    """
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]]
    events = {name: [] for name in functions}
    flushed = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    for function in functions.values():
        for _ in range(WARM_UP):
            function()
    for _ in tqdm(range(rounds), disable=None, leave=False):
        for name, function in functions.items():
            torch.cuda.synchronize()
            for _ in range(4):
                flushed.zero_()
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            function()
            ended.record()
            events[name].append((began, ended))
    torch.cuda.synchronize()
    return {
        name: quartiles([began.elapsed_time(ended) / 1e3 for began, ended in pairs])
        for name, pairs in events.items()
    }


def peak_on_gpu(function: Callable[[], object]) -> int:
    """Bytes of GPU memory that a call claims beyond what is allocated before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def nvidia_smi(*fields: str) -> list[str | None]:
    """The answers of `nvidia-smi --query-gpu` for the current device, None if there is none."""
    uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    command += [f"--id=GPU-{uuid}"] if uuid else []
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return [None] * len(fields)
    values = answer.stdout.strip().splitlines()[0].split(", ")
    return list(values) if len(values) == len(fields) else [None] * len(fields)


def gpu() -> dict[str, Any]:
    """The device, its driver and clocks, and the versions of the libraries that compute on it."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    driver, clock, power = nvidia_smi("driver_version", "clocks.max.sm", "power.limit")
    versions = {}
    for name in ("triton", "mamba-ssm", "causal-conv1d"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "driver": driver,
        "cuda": torch.version.cuda,
        "max_clock_mhz": number(clock),
        "power_limit_watts": number(power),
        "versions": versions,
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
    }


def number(text: str | None) -> float | None:
    """A number from nvidia-smi; None for other answers, such as `[N/A]`."""
    try:
        return float(text or "")
    except ValueError:
        return None


def machine() -> dict[str, Any]:
    """Processor, cores, system, versions, date: without them a number means nothing."""
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


def save(path: Path, results: dict[str, Any]) -> None:
    """Write the results with the machine's description, replacing the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    os.replace(partial, path)


def write(path: Path, results: dict[str, Any]) -> None:
    """`save`, then print the path."""
    save(path, results)
    print(f"written: {path}")
