"""The training loop: one function, which can resume after any epoch and gives the same bits.

Everything random in an epoch is drawn only from (seed, epoch): the order of the images, their
augmentation, drop path. No generator's state is saved. On a CPU, a run that was killed and resumed
ends with the same bits as a run that was not.

On a GPU the host reads nothing back within an epoch, so that the GPU never waits for it: the losses
are read after the epoch's last step, and only then a loss that is not finite is found. No state of
such an epoch is written.

If a batch does not fit into memory, it can be split into micro batches, whose gradients add up to
the batch's before the optimizer steps. That is exact for a loss that is a mean over the samples
(BCE + Dice of one class). It is not for Dice that is pooled over a batch (several classes): that
Dice is then pooled over each micro batch. Drop path is drawn for each sample, but layer by layer
from one generator, so a micro batch draws other masks of the same distribution.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from vmunet.errors import InputError
from vmunet.protocols import Protocol
from vmunet.settings import TrainSettings
from vmunet.training.capture import Choice, choose_step, wanted_step
from vmunet.training.distributed import ALONE, Group, shared
from vmunet.training.loaders import (
    SelectionImages,
    TrainingBatches,
    mix,
    own_batches,
    sample_batch,
)
from vmunet.training.losses import Loss
from vmunet.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from vmunet.training.state import Progress, Row, load_state, save_state
from vmunet.training.step import (
    Batch,
    EagerStep,
    Losses,
    Step,
    check_gradients,
    is_out_of_memory,
    mean_loss,
)


class DivergedError(InputError):
    """The loss is NaN or infinite: training with these settings diverges."""


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
    seconds: float = math.inf,
    group: Group = ALONE,
) -> Progress:
    """Train `model` in place and return its best weights and history.

    Args:
        train_images: items `(image (channels, h, w), target)`. `set_epoch` is called on it with
            the index of each epoch. On a GPU, worker processes that live as long as the run read
            the items, so the epoch must be in shared memory.
        selection_images: the same, but always the same items; the epoch with the lowest mean loss
            on them is kept. None keeps the epoch with the lowest unweighted mean of its batches'
            training losses, as the published Synapse code does.
        loss: the loss of a batch's logits and targets.
        state: the file with the state of training. It is read at the start, written after epochs
            and never deleted here.
        on_start: called once, before the first epoch, with the progress that training resumes
            from; `train` updates this object and returns it.
        on_epoch: called with every new row of the history.
        label: the run's name, for the progress bar and errors.
        micro_batch: samples that the model sees at once in training; by default the whole batch.
        selection_loss: the loss on the selection images, if it differs from the training loss.
            Cells whose training losses have different weights are compared by it.
        seconds: training ends early after the epoch in which so many seconds are over, counted
            from this call; the state is written then.
        group: the processes that train together, connected by `distributed.joined`; each calls this
            with the same arguments, and process 0 alone writes the state.

    Raises:
        DivergedError: the loss is not finite.
        InputError: a gradient is not finite, or a parameter has no gradient; or VMUNET_STEP is no
            kind of steps.
        OSError: the state cannot be written after the last epoch for which there is time. Before
            that, it costs one line, and the next epoch tries again.
    """
    started = time.monotonic()
    wanted = wanted_step()
    model.to(device)
    optimizer = make_optimizer(model, settings, protocol, device)
    progress = Progress()
    if state is not None and state.exists():
        progress = load_state(state, model, optimizer, device)
    on_start(progress)
    if progress.epoch == settings.epochs:
        return progress
    batches = TrainingBatches(train_images, settings.batch_size, seed, device, group)
    network = shared(model, group, device)
    eager = EagerStep(network, optimizer, loss, settings, device, micro_batch, group=group)
    choice = Choice(eager, "eager")
    if group.size == 1 and (device.type == "cuda" or wanted != "auto"):
        model.train()
        if wanted == "auto" and progress.step:
            wanted = progress.step  # a resumed run goes on as it began
        choice = choose_step(
            eager,
            sample_batch(train_images, settings.batch_size, device),
            len(train_images) % settings.batch_size,  # type: ignore[arg-type]
            wanted,
            len(batches) * (settings.epochs - progress.epoch),
            label,
        )
    progress.step = choice.kind
    progress.step_seconds = choice.seconds or progress.step_seconds
    selection = None
    if selection_images is not None:
        own = own_batches(selection_images, settings.batch_size, group)
        selection = SelectionImages(own, settings.batch_size, device)
    save_seconds, saved_at, is_behind = 0.0, time.monotonic(), False

    bar = tqdm(
        total=settings.epochs, initial=progress.epoch, desc=label, unit="epoch", disable=None
    )
    for epoch in range(progress.epoch, settings.epochs):
        began = time.monotonic()
        rate = learning_rate(epoch, settings, protocol)
        set_learning_rate(optimizer, rate)
        train_loss, batch_loss = train_epoch(
            choice.step, model, device, batches, seed, epoch, label, progress.parts, group
        )
        if epoch + 1 < settings.epochs:
            batches.load_ahead(epoch + 1)
        chosen_by, trained_at = batch_loss, time.monotonic()
        if selection is not None:
            chosen_by = score(model, selection, selection_loss or loss, settings, device, group)
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
        progress.parts["selection"] += time.monotonic() - trained_at
        progress.history.append(row)
        if chosen_by < progress.best_loss:
            progress.best_epoch, progress.best_loss = epoch + 1, chosen_by
            progress.best_weights = {
                name: t.detach().cpu().clone() for name, t in model.state_dict().items()
            }
        on_epoch(row)
        bar.update()
        bar.set_postfix(train=f"{train_loss:.4f}", selection=f"{chosen_by:.4f}")
        is_over = time.monotonic() - started > seconds
        if group.size > 1:  # the clock of process 0 counts
            is_over = bool(group.sum(torch.tensor(float(is_over and group.leads), device=device)))
        # Saving may take at most about a tenth of the time: large models are not saved each epoch.
        due = time.monotonic() - saved_at > 10 * save_seconds or progress.epoch == settings.epochs
        if state is not None and group.leads and (due or is_over):
            saving_at = time.monotonic()
            try:
                save_state(state, model, optimizer, progress)
            except OSError as error:
                if is_over:
                    raise
                if not is_behind:
                    tqdm.write(unsaved(label, error), file=sys.stderr)
                is_behind = True  # and still due
            else:
                is_behind, saved_at = False, time.monotonic()
                save_seconds = saved_at - saving_at
                progress.parts["saving"] += save_seconds
        if is_over:
            break
    bar.close()
    return progress


def train_epoch(
    step: Step,
    model: nn.Module,
    device: torch.device,
    batches: TrainingBatches,
    seed: int,
    epoch: int,
    label: str,
    parts: dict[str, float],
    group: Group = ALONE,
) -> tuple[float, float]:
    """Make one pass over the training images.

    Args:
        step: trains the model on a batch.
        parts: the pass is added to its `data` and `step`; see `Progress`.

    Returns:
        The mean loss of the images, and that of the batches, each of which counts the same.

    Raises:
        DivergedError: a loss is not finite.
        InputError: a gradient of the run's first step is missing or not finite.
    """
    began, waited = time.perf_counter(), parts["data"]
    model.train()
    torch.manual_seed(mix(seed, epoch))  # drop path
    losses = Losses()
    bar = tqdm(
        timed(batches.of(epoch), parts),
        total=len(batches),
        desc=f"epoch {epoch + 1}",
        unit="step",
        leave=False,
        disable=None,
    )
    for number, (images, targets) in enumerate(bar, 1):
        is_first = epoch == 0 and number == 1
        size = batches.sizes[number - 1]
        parts_of_all = (group.part(size),) if group.size > 1 else ()
        losses.add(step(images, targets, *parts_of_all), size)
        if is_first or reads_each_loss(device):
            check_loss(losses.last(), label, epoch, number)
        if is_first:
            check_gradients(model, label)
    values = losses.read(group)
    for number, value in enumerate(values, 1):
        check_loss(value, label, epoch, number)
    parts["step"] += time.perf_counter() - began - (parts["data"] - waited)
    return losses.mean(values), math.fsum(values) / len(values)


def timed(batches: Iterator[Batch], parts: dict[str, float]) -> Iterator[Batch]:
    """The batches; the seconds until each of them are added to `parts["data"]`."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        parts["data"] += time.perf_counter() - began
        if batch is None:
            return
        yield batch


def score(
    model: nn.Module,
    selection: SelectionImages,
    loss: Loss,
    settings: TrainSettings,
    device: torch.device,
    group: Group = ALONE,
) -> float:
    """Mean loss over the selection images, with fewer of them at once if memory is too small.

    In a group the selection is this process's part of them, and the mean that of all.
    """
    if group.size > 1:
        own = score(model, selection, loss, settings, device) if len(selection) else 0.0
        values = [own * len(selection), len(selection)]
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        total, count = group.sum(sums).tolist()
        return total / count
    while True:
        try:
            return mean_loss(model, selection, loss, settings, device)
        except RuntimeError as error:
            if not is_out_of_memory(error) or not selection.halve():
                raise
        torch.cuda.empty_cache()


def reads_each_loss(device: torch.device) -> bool:
    """Whether a loss is checked after its step, because reading it makes nothing wait."""
    return device.type != "cuda"


def check_loss(loss: float, label: str, epoch: int, step: int) -> None:
    """Raise a DivergedError if a step's loss is not finite; the epoch is counted from 0."""
    if not math.isfinite(loss):
        place = f"in epoch {epoch + 1}, step {step}"
        raise DivergedError(diverged(label, loss, place))


def unsaved(label: str, error: OSError) -> str:
    """The line on a state that could not be saved."""
    return (
        f"warning: {label}: no resume point ({error.filename}: {error.strerror}); training goes on "
        "and tries again after each epoch"
    )


def diverged(label: str, loss: float, place: str) -> str:
    """The message of a DivergedError."""
    return (
        f"{label}: the loss became {loss} {place}; lower learning_rate, or set precision: fp32, "
        "in the profile"
    )
