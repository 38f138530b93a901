"""The state of a run between two epochs, and its file, from which a killed run goes on."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from vmunet.files import naming

Row = dict[str, float]


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
        parts: seconds spent on each part of the run: `data` (waiting for a batch), `step` (the
            other time of the passes over the training images), `selection` and `saving`. A GPU may
            still work on earlier steps while the host waits for data.
        step: how the run makes its steps: a kind of `vmunet.training.capture`; '' before the first.
        step_seconds: seconds of a step of each kind that was measured.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    parts: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("data", "step", "selection", "saving"), 0.0)
    )
    step: str = ""
    step_seconds: dict[str, float] = field(default_factory=dict)


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write everything that the next epoch needs, completely or not at all.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    try:
        with naming(path), open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> Progress:
    """Restore the state that `save_state` wrote, for this optimizer's kind of steps."""
    content = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(content["model"])
    # A graph needs both as they are here, whatever steps the run that wrote the file made.
    kept = [
        {name: group[name] for name in ("lr", "capturable")} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(content["optimizer"])
    for group, own in zip(optimizer.param_groups, kept, strict=True):
        group.update(own)
    progress = Progress(**content["progress"])
    progress.best_weights = {name: t.cpu() for name, t in progress.best_weights.items()}
    return progress
