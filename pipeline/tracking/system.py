"""System metrics under the names of MLflow's own monitor, so that its page shows them."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path

Gauge = Callable[[], Mapping[str, float]]


def system_sampler(gauge: Gauge | None = None) -> Gauge:
    """A function that returns the machine's load since its last call.

    Args:
        gauge: returns further values that only the caller knows, such as its GPU's memory. The load
            of all GPUs is added if nvidia-ml-py is installed.
    """
    import psutil

    process = psutil.Process()
    psutil.cpu_percent()
    nvml = _nvml()

    def sample() -> dict[str, float]:
        memory = psutil.virtual_memory()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            "process_memory_megabytes": process.memory_info().rss / 1e6,
            **(gauge() if gauge else {}),
            **nvml(),
        }
        return {f"system/{name}": round(value, 1) for name, value in values.items()}

    return sample


def _nvml() -> Gauge:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # not installed, or no driver
        return dict

    def utilization() -> dict[str, float]:
        return {
            f"gpu_{i}_utilization_percentage": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            for i, handle in enumerate(handles)
        }

    return utilization


def processor_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
