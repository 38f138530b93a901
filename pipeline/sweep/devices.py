"""The GPUs and cores of a machine: each stage gets one GPU, or a share of the cores."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from vmunet.errors import InputError

MOST_ON_CPU = 8  # parallel stages by default; each needs its own memory
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VMUNET_THREADS")


class Devices:
    """Hands out GPUs and cores, and decides the number of stages that run in parallel.

    Args:
        parallel: the number of stages that run in parallel; None for one on each GPU, on each of
            the `workers`, or on each core.
        gpus: `all`, `none`, or indices as CUDA counts them, such as 0,2.
        workers: the number of machines that run the cells, or 0. If there are any, this machine
            runs only the other stages, without a GPU.

    Raises:
        InputError: a GPU that `gpus` names does not exist.
    """

    def __init__(self, parallel: int | None = None, gpus: str = "all", workers: int = 0) -> None:
        present = [] if gpus == "none" or workers else visible_gpus()
        chosen = present if gpus in ("all", "none") else gpus.split(",")
        for gpu in chosen:
            if gpu not in present:
                here = ", ".join(present) or "none (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
                raise InputError(f"--gpus {gpus}: there is no GPU {gpu}; this machine has: {here}")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.gpus, self.cores = chosen, cores or 1
        most = len(chosen) or workers or min(self.cores, MOST_ON_CPU)
        self.width = parallel if parallel and not chosen else min(parallel or most, most)
        self.threads = max(1, self.cores // self.width)
        self._free: SimpleQueue[str] = SimpleQueue()
        for gpu in chosen:
            self._free.put(gpu)
        self._hides_gpus = gpus == "none" or workers > 0
        # For a stage that runs with no other: the GPUs of `gpus`, else the same as `dvc repro`.
        self._alone = {} if gpus == "all" else {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}

    def __str__(self) -> str:
        if self.gpus:
            return f"{self.width} at once, one on a GPU ({', '.join(self.gpus)})"
        return f"{self.width} at once, {self.threads} of {self.cores} cores each"

    @contextmanager
    def reserve(self, alone: bool = False) -> Iterator[dict[str, str]]:
        """Environment variables of a stage, which name its GPU or its share of the cores.

        Args:
            alone: no other stage runs, so this one has all cores and GPUs, as under `dvc repro`.
        """
        if alone:
            yield self._alone
            return
        environment: dict[str, str] = {}
        if self.width > 1:  # else each library chooses its number of threads
            for name in THREADS:
                text = os.environ.get(name, "")
                limit = int(text) if text.isdecimal() else 0  # 0 is no limit
                threads = min(self.threads, limit) if limit else self.threads
                environment[name] = str(threads)
        if self._hides_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if not self.gpus:
            yield environment
            return
        gpu = self._free.get()
        try:
            yield environment | {"CUDA_VISIBLE_DEVICES": gpu}
        finally:
            self._free.put(gpu)


def visible_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names; if it is not set, those that nvidia-smi lists."""
    indices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if indices is not None:
        return [gpu.strip() for gpu in indices.split(",") if gpu.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        query = [tool, "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdecimal()]
