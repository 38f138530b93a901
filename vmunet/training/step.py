"""One training step, and the losses of an epoch, which are read from the device at once.

No function here waits for a GPU, except where its docstring says so: while the host waits, the GPU
runs out of work, and what waits cannot be captured as a CUDA graph. So whether a loss is finite is
seen when the losses are read.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from vmunet.architecture import SeveralHeads
from vmunet.errors import InputError
from vmunet.settings import TrainSettings
from vmunet.training.distributed import ALONE, Group, Part, set_part, unshared, unwrapped
from vmunet.training.losses import Loss

Step = Callable[..., Tensor]  # (images, targets) -> the loss, a scalar on the device
Batch = tuple[Tensor, Tensor]  # images (batch, channels, h, w) and their targets


@dataclass(frozen=True)
class EagerStep:
    """A training step that starts one kernel after the other: forward, loss, backward, AdamW.

    Attributes:
        model: on `device`; it is trained in place.
        optimizer: of the model's parameters.
        loss: of a batch's logits and targets.
        settings: the run's.
        device: batches are copied to it.
        micro_batch: samples that the model sees at once; None for the whole batch.
        new_gradients: whether each step makes its gradients anew. If not, it writes into those that
            are there, such as a graph's.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    settings: TrainSettings
    device: torch.device
    micro_batch: int | None = None
    new_gradients: bool = True
    group: Group = ALONE

    def __call__(self, images: Tensor, targets: Tensor, part: Part | None = None) -> Tensor:
        """Train on a batch and return its mean loss, not yet checked; the gradients stay.

        Args:
            part: which samples of the batch these are, in a group of processes; of an empty part
                there is one sample, which does not count. The parts' losses add up to the batch's.
        """
        images = images.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=self.new_gradients)
        share, scale = 1.0, 1.0
        if part is not None:
            share = (part.last - part.first) / part.whole
            scale = share * self.group.size  # the group's gradients are averaged
            set_part(self.model, part if self.micro_batch is None else None)
        value = backward(
            self.model, images, targets, self.loss, self.settings, self.micro_batch, scale
        )
        self.optimizer.step()
        return value if part is None else value * share

    def compiled(self) -> "EagerStep":
        """The same step with the compiled model."""
        return replace(self, model=compiled(self.model))


def compiled(model: nn.Module) -> nn.Module:
    """The model compiled by torch for batches of one shape; drop path draws as in the model."""
    network = torch.compile(model, dynamic=False, options={"fallback_random": True})
    return cast(nn.Module, network)


def backward(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Loss,
    settings: TrainSettings,
    micro_batch: int | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Add a batch's gradients to the parameters' and return its mean loss, a scalar.

    Args:
        micro_batch: samples at once; each part is weighted by its share of the batch.
        scale: a factor on the gradients.
    """
    size, total = micro_batch or len(images), []
    parts = list(zip(images.split(size), targets.split(size), strict=True))
    for number, (part, its_targets) in enumerate(parts, 1):
        with nullcontext() if number == len(parts) else unshared(model):
            value = batch_loss(model, part, its_targets, loss, settings)
            if len(part) < len(images):
                value = value * (len(part) / len(images))
            (value if scale == 1.0 else value * scale).backward()
        total.append(value.detach())
    return total[0] if len(total) == 1 else torch.stack(total).sum()


def batch_loss(
    model: nn.Module, images: Tensor, targets: Tensor, loss: Loss, settings: TrainSettings
) -> Tensor:
    """The loss of a batch, of all heads by their weights; NaN if a logit is not finite.

    Raises:
        InputError: the batch is too small for batch norm.
    """
    outputs = _outputs(model, images, settings)
    if isinstance(outputs, Tensor):
        return _loss_of(outputs, targets, loss)
    heads = cast(SeveralHeads, unwrapped(model)).heads
    return torch.stack(
        [heads[name] * _loss_of(outputs[name], targets, loss) for name in outputs]
    ).sum()


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: TrainSettings,
    device: torch.device,
) -> float:
    """Mean loss over images, without augmentation or drop path. It waits for the device, once.

    Args:
        batches: what the model sees at once. Their loss is taken in parts of `batch_size`, because
            Dice of several classes is pooled over a batch.
    """
    model.eval()
    losses = Losses()
    for images, targets in batches:
        logits = cast(Tensor, _outputs(model, images.to(device), settings))
        parts = zip(
            logits.split(settings.batch_size),
            targets.to(device).split(settings.batch_size),
            strict=True,
        )
        for part, its_targets in parts:
            losses.add(_loss_of(part, its_targets, loss), len(part))
    return losses.mean(losses.read())


class Losses:
    """The losses of an epoch's batches, kept on the device until they are read."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._samples: list[int] = []

    def add(self, value: Tensor, samples: int) -> None:
        """Add a batch's mean loss, a scalar, and its number of samples."""
        self._values.append(value)
        self._samples.append(samples)

    def last(self) -> float:
        """The last batch's loss; waits for the device."""
        return self._values[-1].item()

    def read(self, group: Group = ALONE) -> list[float]:
        """All losses, in order, added up over the group; waits for the device, once."""
        return group.sum(torch.stack(self._values)).tolist()

    def mean(self, values: list[float]) -> float:
        """The mean over the samples of the values that were read."""
        total = 0.0  # not by sum(), whose rounding depends on Python's version
        for value, samples in zip(values, self._samples, strict=True):
            total += value * samples
        return total / sum(self._samples)


def check_gradients(model: nn.Module, label: str) -> None:
    """Raise an InputError if a parameter's gradient is missing or not finite; waits for each."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # the published model has it and does not use it
            continue
        if parameter.grad is None or not torch.isfinite(parameter.grad).all():
            raise InputError(f"{label}: the first gradient of {name} is missing or not finite")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no memory left."""
    # drivers, kernels and the processor's allocator raise a RuntimeError; only its words tell
    words = str(error) if isinstance(error, RuntimeError) else ""
    in_words = "out of memory" in words or "can't allocate memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or in_words


def _outputs(
    model: nn.Module, images: Tensor, settings: TrainSettings
) -> Tensor | dict[str, Tensor]:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        try:
            return model(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"a training batch of one image of {images.shape[-1]} px leaves batch norm one "
                "value for a channel: take larger images, or another batch_size so that the last "
                "batch has two"
            ) from None


def _loss_of(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    is_finite = torch.isfinite(logits)
    # Zeros take the place of others: binary cross-entropy would abort the whole GPU context.
    logits = torch.where(is_finite, logits, logits.new_zeros(()))
    value = loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets)
    return value.masked_fill(~is_finite.all(), math.nan)
