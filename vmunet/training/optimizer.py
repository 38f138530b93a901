"""AdamW with the protocol's parameter groups and learning rate."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vmunet.protocols import Protocol
from vmunet.settings import TrainSettings


def make_optimizer(
    model: nn.Module, settings: TrainSettings, protocol: Protocol, device: torch.device
) -> torch.optim.AdamW:
    """AdamW for the model, which is on `device`.

    On a GPU the learning rate is a tensor there, because a CUDA graph would keep a number as it was
    when it was captured.
    """
    groups = parameter_groups(model, settings.weight_decay, protocol)
    if device.type != "cuda":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    rate = torch.tensor(settings.learning_rate, device=device)
    return torch.optim.AdamW(groups, lr=rate, fused=True, capturable=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; a tensor keeps its address."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
