"""Training steps as one CUDA graph, and the choice among the kinds of steps.

A step of VM-UNet starts some thousand kernels, and on a fast GPU the host needs longer to start
them than the GPU to run them. A CUDA graph is recorded once and started as a whole.

eager      one kernel after the other; the only kind on a processor
graph      one CUDA graph
compiled   one CUDA graph of the model compiled by torch.compile

Nobody has run these graphs on a GPU yet: the tests marked gpu are there, unrun.

The kinds differ in rounding and in nothing else: drop path draws the same masks, because a graph
takes the seed and the offset of PyTorch's generator from where they are when it is started, and
compilation leaves random draws as they are. A kind that fails is reported in one line and left out.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from vmunet.errors import InputError
from vmunet.training.step import Batch, EagerStep, Step

STEP = "VMUNET_STEP"  # environment variable: one of KINDS
KINDS = ("auto", "eager", "graph", "compiled")
TITLES = {"eager": "eager", "graph": "a CUDA graph", "compiled": "a CUDA graph, compiled"}
WARM_UPS = 3  # steps before one that is recorded or timed
TIMED = 5  # steps
# `auto` compiles only if so many seconds of steps are ahead: compiling takes a minute or more.
LONG = 900.0

Replay = Callable[[], None]
Record = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]  # see record_graph


@dataclass
class Choice:
    """The step that a run makes.

    Attributes:
        step: to call for each batch; it takes batches of any size.
        kind: `eager`, `graph` or `compiled`.
        seconds: of a step of each kind that was measured.
    """

    step: Step
    kind: str
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        times = [f"{TITLES[kind]}: {1e3 * s:.1f} ms" for kind, s in self.seconds.items()]
        measured = f" ({'; '.join(times)})" if times else ""
        return f"the kind of steps is {TITLES[self.kind]}{measured}"


def choose_step(
    eager: EagerStep,
    batch: Batch,
    rest: int,
    wanted: str,
    steps_ahead: int,
    label: str,
    record: "Record | None" = None,
) -> Choice:
    """The fastest kind of steps, or the kind that is wanted; the model stays as it is.

    Args:
        eager: the step; its model is in training mode.
        batch: a batch of the run's shape, on the device.
        rest: samples of an epoch's last batch if it is smaller, else 0. It is not captured, and
            must fit into memory beside the graph.
        wanted: one of KINDS.
        steps_ahead: steps until the end of the run.
        label: the run's name, for the lines on stderr.
        record: records a step; `record_graph`, by default, on a CUDA device.

    Raises:
        InputError: the batch is one that the model or the loss refuses.
    """
    if record is None and eager.device.type == "cuda":
        record = record_graph
    if record is None or wanted == "eager":
        if wanted in ("graph", "compiled"):
            say(label, f"{STEP}={wanted} needs a CUDA device: steps are eager")
        return Choice(eager, "eager")
    with unchanged(eager.model, eager.optimizer):
        if wanted == "auto":
            choice = _fastest(eager, batch, rest, steps_ahead, label, record)
        else:
            step = _capture(wanted, eager, batch, rest, label, record)
            choice = Choice(step, wanted) if step else Choice(eager, "eager")
    say(label, str(choice))
    return choice


def wanted_step() -> str:
    """The kind that VMUNET_STEP names; `auto` if it is unset or empty.

    Raises:
        InputError: it is another word.
    """
    text = os.environ.get(STEP, "").strip() or "auto"
    if text not in KINDS:
        raise InputError(f"{STEP}={text}: expected one of {', '.join(KINDS)}; auto measures them")
    return text


class CapturedStep:
    """A step that is recorded for one shape of batches and replayed.

    Args:
        step: what is recorded. It is called some times with the batch, and trains.
        batch: of the shape.
        otherwise: the step for batches of other shapes, with the same model and optimizer. It must
            leave the parameters' `grad` the tensors that the recorded step made.
        record: see `record_graph`.
    """

    def __init__(self, step: Step, batch: Batch, otherwise: Step, record: Record) -> None:
        images, targets = self._images, self._targets = batch[0].clone(), batch[1].clone()
        self._otherwise = otherwise
        self._replay, self._loss = record(lambda: step(images, targets))

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Train on a batch and return its mean loss, as `EagerStep` does."""
        if images.shape != self._images.shape or targets.shape != self._targets.shape:
            return self._otherwise(images, targets)
        self._images.copy_(images, non_blocking=True)
        self._targets.copy_(targets, non_blocking=True)
        self._replay()
        return self._loss.clone()  # the next replay writes over it


def record_graph(function: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """Record what a function does on the GPU.

    The function runs some times before: that compiles kernels, measures tiles, makes the
    optimizer's state, and lets a function fail early that waits for the GPU.

    Returns:
        A function that does the same again, and the tensor that holds the result each time.
    """
    stream = torch.cuda.current_stream()
    try:
        side = torch.cuda.Stream()  # not the default stream, as capturing needs it
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
            with no_waiting():
                function()
        stream.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, such as the one that samples the GPU's memory, may go on.
        # The default generator is registered with the graph by the capture itself. The function
        # sets the gradients to None, so that the graph makes its own, in its own memory.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
    except Exception:
        # A capture that fails leaves its stream current and the generator waiting for its end.
        torch.cuda.set_stream(stream)
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return graph.replay, result


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise a RuntimeError at each operation by which the host would wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def unchanged(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restore the model and the optimizer's state at the end, in place.

    A graph keeps their addresses. State that was made meanwhile becomes 0, AdamW's first state.
    """
    weights = {name: t.to("cpu", copy=True) for name, t in model.state_dict().items()}
    states = {
        parameter: {name: t.to("cpu", copy=True) for name, t in state.items()}
        for parameter, state in optimizer.state.items()
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(weights[name])
            for parameter, state in optimizer.state.items():
                for name, tensor in state.items():
                    if parameter in states:
                        tensor.copy_(states[parameter][name])
                    else:
                        tensor.zero_()


def say(label: str, line: str) -> None:
    """Print a line about the run on stderr."""
    print(f"{label}: {line}" if label else line, file=sys.stderr)


def _fastest(
    eager: EagerStep, batch: Batch, rest: int, steps_ahead: int, label: str, record: Record
) -> Choice:
    seconds = {"eager": _seconds(eager, batch)}
    step: Step | None = eager
    kept = "eager"
    for kind in ("graph", "compiled"):
        if kind == "compiled" and steps_ahead * min(seconds.values()) < LONG:
            continue
        step, kept = None, kind  # one graph at a time: each keeps the memory of a step
        if step := _capture(kind, eager, batch, rest, label, record):
            seconds[kind] = _seconds(step, batch)
    best = min(seconds, key=lambda kind: seconds[kind])
    if best != kept:
        step = None
        step = eager if best == "eager" else _capture(best, eager, batch, rest, label, record)
    return Choice(step, best, seconds) if step else Choice(eager, "eager", seconds)


def _capture(
    kind: str, eager: EagerStep, batch: Batch, rest: int, label: str, record: Record
) -> Step | None:
    """A captured step of this kind, or None after a line that says why there is none."""
    images, targets = batch
    try:
        recorded = eager.compiled() if kind == "compiled" else eager
        otherwise = replace(eager, new_gradients=False)
        step = CapturedStep(recorded, batch, otherwise, record)
        if rest:
            otherwise(images[:rest], targets[:rest])
        step(images, targets)
        _synchronise(eager.device)
        return step
    except InputError:
        raise
    except Exception as error:  # torch.compile's and Triton's errors are not RuntimeErrors
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    # Only after the exception is gone, because it holds the tensors of the failed step.
    gc.collect()
    if eager.device.type == "cuda":
        torch.cuda.empty_cache()
    say(label, f"steps cannot be {TITLES[kind]} ({reason})")
    return None


def _seconds(step: Step, batch: Batch) -> float:
    """Seconds of a step."""
    for _ in range(WARM_UPS):
        step(*batch)
    _synchronise(batch[0].device)
    began = time.perf_counter()
    for _ in range(TIMED):
        step(*batch)
    _synchronise(batch[0].device)
    return (time.perf_counter() - began) / TIMED


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
