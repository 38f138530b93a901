"""The speed of a model's inference and training, and the memory that they take.

The following is measured with random weights, on random images in the device's memory:

inference: one forward pass of a batch, in eval mode and torch.inference_mode, in float32, as
    `vmunet.evaluation.images` predicts.
training: one step of the paper's protocol on a batch, as `vmunet.training.step` does it: forward,
    loss, backward, AdamW, in the settings' precision.
peak memory: the memory that each of them claims beyond what the process held before the model was
    made. On a GPU it is the allocator's peak. On a CPU it is the peak of resident memory, each
    time in a new process, because a process returns little of the memory that it once claimed.

Not measured: reading, resizing and augmenting images, copies between memories, writing
checkpoints, the compilation of kernels, and scoring.

The seconds of a step are the median over all rounds. A round measures all models in turn, so that
a slow moment of the machine affects them all. Each model is made again, does `WARM_UP` steps that
do not count, and is deleted, so that only one is timed at a time. A model whose timed steps have
taken `LONG` seconds is not repeated.
"""

import gc
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vmunet.models import MODELS
from vmunet.protocols import PAPER
from vmunet.settings import TrainSettings
from vmunet.threads import in_threads
from vmunet.training.losses import training_loss
from vmunet.training.optimizer import parameter_groups
from vmunet.training.processor import use_processor
from vmunet.training.step import backward, is_out_of_memory

WARM_UP = 1  # steps: the first one compiles kernels and claims memory
REPEATS = 3  # timed steps of a model in a round
ROUNDS = 4
SECONDS = 15.0  # after these no further round begins
LONG = 3.0  # seconds
MEMORY_STEPS = 2  # AdamW makes its state in the first step
IMPORTED_BY_STEPS = ("vmunet.scan.cpu_kernels", "torch._dynamo")

TINY = {"depths": (1,) * 4, "depths_decoder": (1,) * 4, "dims": (8, 16, 32, 64)}

Step = Callable[[], None]


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    Attributes:
        model: its name in `vmunet.models.MODELS`.
        arguments: of its constructor.
        size: side of the square images or of the cubes, px.
        batch_size: images in a step.
        training: whether the step is one of training or of inference.
        settings: for training, AdamW's settings and the precision.
    """

    model: str
    arguments: Mapping[str, Any]
    size: int
    batch_size: int
    training: bool
    settings: TrainSettings = field(default_factory=TrainSettings)


@dataclass(frozen=True)
class Measured:
    """The speed and memory of a workload; both are None if it does not fit into memory.

    Attributes:
        images_per_second: the batch size divided by the median seconds of a step.
        peak_bytes: memory beyond what was held before the model was made.
        repetitions: timed steps.
    """

    images_per_second: float | None
    peak_bytes: int | None
    repetitions: int


def measure(
    workloads: Mapping[str, Workload], device: torch.device, seconds: float = SECONDS
) -> dict[str, Measured]:
    """Speed and memory of each workload, by name.

    Args:
        workloads: by name; they are measured in turn.
        device: the GPU, or the CPU with the threads that torch has now.
        seconds: after these no further round begins.
    """
    peaks: dict[str, int | None] = {}
    if device.type == "cpu":
        threads = torch.get_num_threads()
        at_once = max(1, (os.cpu_count() or 1) // threads)  # the peaks do not depend on it
        works = list(workloads.values())
        found = in_threads(lambda work: peak_on_cpu(work, threads), works, "memory", at_once)
        peaks = dict(zip(workloads, found, strict=True))
    times: dict[str, list[float]] = {name: [] for name in workloads}
    began = time.monotonic()
    with tqdm(total=ROUNDS * len(workloads), desc="speed", disable=None, leave=False) as bar:
        for done in range(ROUNDS):
            if done and time.monotonic() - began > seconds:
                break
            for name, work in workloads.items():
                bar.update()
                if peaks.get(name, 0) is None or sum(times[name]) > LONG:
                    continue  # it does not fit, or is timed
                seconds_of_steps, peak = _timed(work, device)
                times[name] += seconds_of_steps
                if device.type == "cuda" or peak is None:
                    peaks[name] = None if peak is None else max(peaks.get(name) or 0, peak)
    return {
        name: Measured(None, None, 0)
        if peaks[name] is None
        else Measured(
            work.batch_size / statistics.median(times[name]), peaks[name], len(times[name])
        )
        for name, work in workloads.items()
    }


def make_step(work: Workload, device: torch.device) -> Step:
    """A function that does one step of the workload, with a new model."""
    torch.manual_seed(0)
    model = MODELS[work.model](**work.arguments).to(device)
    sides = (work.size,) * model.dimensions
    images = 255 * torch.rand(work.batch_size, model.in_channels, *sides, device=device)
    if not work.training:
        model.eval()

        def infer() -> None:
            with torch.inference_mode():
                model(images)

        return infer

    model.train()
    settings, classes = work.settings, model.config["num_classes"]
    targets = torch.randint(max(classes, 2), (work.batch_size, *sides), device=device)
    if classes == 1:
        targets = targets[:, None].float()
    loss = training_loss(classes, PAPER.loss_input)
    groups = parameter_groups(model, settings.weight_decay, PAPER)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(model, images, targets, loss, settings)
        optimizer.step()

    return train


def _timed(work: Workload, device: torch.device) -> tuple[list[float], int | None]:
    """Seconds of up to `REPEATS` steps of a new model, and the GPU's peak bytes.

    If the steps do not fit into memory, an empty list and None.
    """
    cuda, before = device.type == "cuda", 0
    seconds: list[float] = []
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    try:
        step = make_step(work, device)
        for repeat in range(WARM_UP + REPEATS):
            if sum(seconds) > LONG:
                break
            _synchronise(device)
            began = time.perf_counter()
            step()
            _synchronise(device)
            if repeat >= WARM_UP:
                seconds.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated(device) - before if cuda else 0
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return [], None
    finally:
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    return seconds, peak


def peak_on_cpu(work: Workload, threads: int) -> int | None:
    """Bytes of resident memory that the workload claims in a new process; None if it does not fit.

    Raises:
        RuntimeError: the process failed; its own traceback is on stderr.
    """
    context = _new_processes()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_claimed, args=(work, threads, sender))
    process.start()
    sender.close()  # so that the pipe ends with the process
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:  # the system ends a process that takes too much
            return None
        raise RuntimeError(f"measuring memory ended with status {process.exitcode}") from None
    finally:
        process.join()


def _send_claimed(work: Workload, threads: int, sender: Connection) -> None:
    try:
        sender.send(_claimed(work, threads))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        sender.send(None)


def _new_processes() -> ForkServerContext | SpawnContext:
    """Processes that hold only the imported modules, which are imported once if possible."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED_BY_STEPS])
    return context


def _claimed(work: Workload, threads: int) -> int:
    """Bytes that the workload claims beyond those that this process holds now."""
    use_processor(threads)
    cpu = torch.device("cpu")
    tiny = replace(work, model="vmunet", arguments=TINY, size=32, batch_size=1)
    make_step(tiny, cpu)()  # loads modules and kernels
    before = resident("VmRSS")
    step = make_step(work, cpu)
    for _ in range(MEMORY_STEPS):
        step()
    return max(0, resident("VmHWM") - before)


def resident(which: str) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or the peak until now (`VmHWM`).

    On Linux getrusage does not give the peak: a new program inherits that of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(which))
        return 1024 * int(line.split()[1])
    import resource

    import psutil

    if which == "VmRSS":
        return psutil.Process().memory_info().rss
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def device_names(device: torch.device) -> dict[str, str]:
    """The device's name as in a run's record, and the processor's model."""
    info, processor = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].split(":")[1].strip() if lines else processor
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "processor": processor}


def architecture_name(depths: Sequence[int], depths_decoder: Sequence[int]) -> str:
    """The depths as a name, such as 2,2,2,2-2,2,2,1."""
    return "-".join(",".join(map(str, part)) for part in (depths, depths_decoder))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
