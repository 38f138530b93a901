"""The training loop: one function, which can resume after any epoch and gives the same bits.

Everything random in an epoch is drawn only from (seed, epoch): the order of the images, their
augmentation, drop path. No generator's state is saved. On a CPU, a run that was killed and resumed
ends with the same bits as a run that was not.

If a batch does not fit into memory, it can be split into micro batches, whose gradients add up to
the batch's before the optimizer steps. That is exact for a loss that is a mean over the samples
(BCE + Dice of one class). It is not for Dice that is pooled over a batch (several classes): that
Dice is then pooled over each micro batch. Drop path is drawn for each sample, but layer by layer
from one generator, so a micro batch draws other masks of the same distribution.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from vmunet.architecture import SeveralHeads
from vmunet.errors import InputError
from vmunet.protocols import Protocol
from vmunet.settings import TrainSettings
from vmunet.training.losses import Loss

Row = dict[str, float]


class DivergedError(InputError):
    """The loss is NaN or infinite: training with these settings diverges."""


@dataclass
class Progress:
    """The state of a run after `epoch` whole epochs.

    Attributes:
        epoch: epochs done.
        best_epoch: epoch with the lowest selection loss, counted from 1.
        best_loss: that loss.
        best_weights: the model's state dict after that epoch.
        history: one row for each epoch: epoch, learning_rate, train_loss, selection_loss.
        seconds: time that the epochs took, before and after every resume.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0


def train(
    model: nn.Module,
    train_images: Dataset,
    selection_images: Dataset | None,
    loss: Loss,
    settings: TrainSettings,
    protocol: Protocol,
    seed: int,
    device: torch.device,
    state: Path | None = None,
    on_start: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[Row], None] = lambda row: None,
    label: str = "",
    micro_batch: int | None = None,
    selection_loss: Loss | None = None,
) -> Progress:
    """Train `model` in place and return its best weights and history.

    Args:
        train_images: items `(image (channels, h, w), target)`. `set_epoch` is called on it with
            the index of each epoch.
        selection_images: the same; the epoch with the lowest mean loss on them is kept. None
            keeps the epoch with the lowest training loss, as the published Synapse code does.
        loss: the loss of a batch's logits and targets.
        state: the file with the state of training. It is read at the start, written after epochs
            and never deleted here.
        on_start: called once, before the first epoch, with the progress that training resumes
            from.
        on_epoch: called with every new row of the history.
        label: the run's name, for the progress bar and errors.
        micro_batch: samples that the model sees at once in training; by default the whole batch.
        selection_loss: the loss on the selection images, if it differs from the training loss.
            Cells whose training losses have different weights are compared by it.

    Raises:
        DivergedError: the loss is not finite.
        InputError: a gradient is not finite, or a parameter has no gradient.
    """
    model.to(device)
    groups = parameter_groups(model, settings.weight_decay, protocol)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    progress = Progress()
    if state is not None and state.exists():
        progress = load_state(state, model, optimizer, device)
    on_start(progress)
    loader = batches(train_images, settings.batch_size, device)
    selection = None
    if selection_images is not None:
        cuda = device.type == "cuda"
        selection = DataLoader(selection_images, settings.batch_size, pin_memory=cuda)
    save_seconds, saved_at = 0.0, time.monotonic()

    bar = tqdm(
        total=settings.epochs, initial=progress.epoch, desc=label, unit="epoch", disable=None
    )
    for epoch in range(progress.epoch, settings.epochs):
        began = time.monotonic()
        rate = learning_rate(epoch, settings, protocol)
        for group in optimizer.param_groups:
            group["lr"] = rate
        train_loss = train_epoch(
            model,
            loader(seed, epoch),
            optimizer,
            loss,
            settings,
            seed,
            epoch,
            device,
            label,
            micro_batch,
        )
        chosen_by = train_loss
        if selection is not None:
            chosen_by = mean_loss(model, selection, selection_loss or loss, settings, device)
        if not math.isfinite(chosen_by):
            raise DivergedError(diverged(label, chosen_by, f"after epoch {epoch + 1}"))
        row = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "train_loss": train_loss,
            "selection_loss": chosen_by,
        }
        progress.epoch = epoch + 1
        progress.seconds += time.monotonic() - began
        progress.history.append(row)
        if chosen_by < progress.best_loss:
            progress.best_epoch, progress.best_loss = epoch + 1, chosen_by
            progress.best_weights = {
                name: t.detach().cpu().clone() for name, t in model.state_dict().items()
            }
        on_epoch(row)
        bar.update()
        bar.set_postfix(train=f"{train_loss:.4f}", selection=f"{chosen_by:.4f}")
        # Saving may take at most about a tenth of the time: large models are not saved each epoch.
        due = time.monotonic() - saved_at > 10 * save_seconds or progress.epoch == settings.epochs
        if state is not None and due:
            started = time.monotonic()
            save_state(state, model, optimizer, progress)
            saved_at = time.monotonic()
            save_seconds = saved_at - started
    bar.close()
    return progress


def train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    settings: TrainSettings,
    seed: int,
    epoch: int,
    device: torch.device,
    label: str,
    micro_batch: int | None = None,
) -> float:
    """Make one pass over the training images and return their mean loss."""
    model.train()
    torch.manual_seed(mix(seed, epoch))  # drop path
    total, count = 0.0, 0
    bar = tqdm(loader, desc=f"epoch {epoch + 1}", unit="step", leave=False, disable=None)
    for step, (images, targets) in enumerate(bar):
        images = images.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        try:
            value = backward(model, images, targets, loss, settings, micro_batch)
        except FloatingPointError as error:
            place = f"in epoch {epoch + 1}, step {step + 1}"
            raise DivergedError(diverged(label, float(str(error)), place)) from None
        if epoch == 0 and step == 0:
            check_gradients(model, label)
        optimizer.step()
        total += value.item() * len(images)  # waits for the GPU, so it comes after the step
        count += len(images)
    return total / count


def backward(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Loss,
    settings: TrainSettings,
    micro_batch: int | None = None,
) -> Tensor:
    """Add a batch's gradients to the parameters' and return its mean loss, a scalar.

    Args:
        micro_batch: samples at once; each part is weighted by its share of the batch.

    Raises:
        FloatingPointError: a loss is not finite; the message is the loss.
    """
    size, total = micro_batch or len(images), []
    for part, its_targets in zip(images.split(size), targets.split(size), strict=True):
        value = batch_loss(model, part, its_targets, loss, settings)
        if not torch.isfinite(value):
            raise FloatingPointError(str(value.item()))
        if len(part) < len(images):
            value = value * (len(part) / len(images))
        value.backward()
        total.append(value.detach())
    return total[0] if len(total) == 1 else torch.stack(total).sum()


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    loader: DataLoader,
    loss: Loss,
    settings: TrainSettings,
    device: torch.device,
) -> float:
    """Mean loss over the images of `loader`, without augmentation or drop path."""
    model.eval()
    total, count = 0.0, 0
    for images, targets in loader:
        value = batch_loss(model, images.to(device), targets.to(device), loss, settings)
        total += value.item() * len(images)
        count += len(images)
    return total / count


def batch_loss(
    model: nn.Module, images: Tensor, targets: Tensor, loss: Loss, settings: TrainSettings
) -> Tensor:
    """The loss of a batch, of all heads by their weights; NaN if a logit is not finite.

    Raises:
        InputError: the batch is too small for batch norm.
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        try:
            outputs = model(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"a training batch of one image of {images.shape[-1]} px leaves batch norm one "
                "value for a channel: take larger images, or another batch_size so that the last "
                "batch has two"
            ) from None
    if not isinstance(model, SeveralHeads) or not isinstance(outputs, dict):
        return _loss_of(outputs, targets, loss)
    losses = [model.heads[name] * _loss_of(outputs[name], targets, loss) for name in outputs]
    return torch.stack(losses).sum()


def _loss_of(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    if not torch.isfinite(logits).all():  # binary cross-entropy would abort the whole GPU context
        return logits.new_tensor(math.nan, dtype=torch.float32)
    return loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets)


def learning_rate(epoch: int, settings: TrainSettings, protocol: Protocol) -> float:
    """Learning rate of the epoch with this index, counted from 0.

    The closed form of CosineAnnealingLR. After T_max the cosine climbs again, as it does in the
    published runs: with T_max 50, epoch 300 runs at 9.99e-4.
    """
    half_period = settings.t_max
    if protocol.schedule == "cosine":
        half_period = max(settings.epochs - 1, 1)
    cosine = (1 + math.cos(math.pi * epoch / half_period)) / 2
    return settings.eta_min + (settings.learning_rate - settings.eta_min) * cosine


def parameter_groups(
    model: nn.Module, weight_decay: float, protocol: Protocol
) -> list[dict[str, Any]]:
    """AdamW's parameter groups: weight decay on all parameters, or on matrices only.

    `matrices` leaves out norms, biases, and the recurrence's A_log and D. Weight decay pulls
    towards zero, which is not a neutral value for them.
    """
    if protocol.weight_decay_on == "all":
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    decay: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        vector = parameter.ndim < 2 or name.endswith(("A_logs", "dt_projs_bias"))
        (free if vector else decay).append(parameter)
    return [
        {"params": decay, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def batches(
    images: Dataset, batch_size: int, device: torch.device
) -> Callable[[int, int], DataLoader]:
    """A function that gives the loader of an epoch, in an order drawn from (seed, epoch)."""
    cuda = device.type == "cuda"

    def loader(seed: int, epoch: int) -> DataLoader:
        source = images.dataset if isinstance(images, Subset) else images
        source.set_epoch(epoch)  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(mix(seed, epoch))
        order: Iterator[int] | list[int]
        order = torch.randperm(len(images), generator=generator).tolist()  # type: ignore[arg-type]
        # On a CPU, worker processes would only take cores from the scan.
        return DataLoader(
            images,
            batch_size,
            sampler=order,
            num_workers=min(8, os.cpu_count() or 1) if cuda else 0,
            pin_memory=cuda,
        )

    return loader


def diverged(label: str, loss: float, place: str) -> str:
    """The message of a DivergedError."""
    return (
        f"{label}: the loss became {loss} {place}; lower learning_rate, or set precision: fp32, "
        "in the profile"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no memory left."""
    # drivers, kernels and the processor's allocator raise a RuntimeError; only its words tell
    words = str(error) if isinstance(error, RuntimeError) else ""
    in_words = "out of memory" in words or "can't allocate memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or in_words


def check_gradients(model: nn.Module, label: str) -> None:
    """Raise an InputError if a parameter's gradient is missing or not finite."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # the published model has it and does not use it
            continue
        if parameter.grad is None or not torch.isfinite(parameter.grad).all():
            raise InputError(f"{label}: the first gradient of {name} is missing or not finite")


def mix(seed: int, epoch: int) -> int:
    """A different generator seed for every (seed, epoch)."""
    return (seed * 1_000_003 + epoch) % 2**63


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write everything that the next epoch needs, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> Progress:
    """Restore the state that `save_state` wrote."""
    content = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    progress = Progress(**content["progress"])
    progress.best_weights = {name: t.cpu() for name, t in progress.best_weights.items()}
    return progress
