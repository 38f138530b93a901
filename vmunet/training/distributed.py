"""One run on several GPUs: each process trains on its share of every batch.

The batches, their augmentation and drop path are those of a single process, so the losses are too,
up to rounding. Exceptions: Dice of several classes, which is pooled over a batch, is pooled over
each process's share, as over a micro batch; and dropout in other models than VM-UNet draws anew in
each process.

A run on N GPUs is N processes of the same command. `vmunet.training.launch` or `torchrun` starts
them; each learns its place from the environment variables that `torchrun` sets. If one of them
fails, the others are stopped.

It was run with gloo, on processors. No GPU has run it yet.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vmunet.errors import InputError
from vmunet.model import DropPath
from vmunet.training.launch import LAUNCHED, end_with_parent

# Processes meet at the start, where the first one may still read its state, and after each step.
PATIENCE = timedelta(minutes=30)


class Part(NamedTuple):
    """A process's samples of a batch: from `first` to before `last`, of `whole`."""

    first: int
    last: int
    whole: int


@dataclass(frozen=True)
class Group:
    """The processes that train one model, and this one's place among them.

    Attributes:
        rank: from 0; process 0 alone writes.
        size: the number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, whole: int) -> Part:
        """This process's part of a batch of `whole` samples; it may be empty."""
        return Part(whole * self.rank // self.size, whole * (self.rank + 1) // self.size, whole)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, in each of them; all call it, with one shape."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Group()


def group_of(environment: Mapping[str, str] = os.environ) -> Group | None:
    """The group of which `torchrun` or `launch` made this process a part, or None."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    return Group(int(environment["RANK"]), int(environment["WORLD_SIZE"]))


def device_of(group: Group) -> torch.device:
    """The GPU of this process, which becomes the current one; the processor if there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if group.size == 1:
        return torch.device("cuda")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", group.rank)))
    torch.cuda.set_device(device)
    return device


def check(gpus: int, batch_size: int, available: int) -> None:
    """Raise an InputError if a batch or this machine cannot be shared out among so many GPUs."""
    if gpus > available:
        raise InputError(
            f"train: gpus: {gpus}, and this process sees {available}; take at most so many (a "
            "sweep gives each training one GPU, so run such a training by itself)"
        )
    if batch_size % gpus:
        raise InputError(
            f"train: batch_size: {batch_size} does not divide into {gpus} equal parts for gpus: "
            f"{gpus}; change one of the two"
        )


@contextmanager
def joined(group: Group, device: torch.device) -> Iterator[None]:
    """Connect the processes of a group for the time of the block."""
    if group.size == 1:
        yield
        return
    if LAUNCHED in os.environ:
        end_with_parent()
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, rank=group.rank, world_size=group.size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shared(model: nn.Module, group: Group, device: torch.device) -> nn.Module:
    """The model whose gradients are averaged over the group; its parameters are the model's own.

    Raises:
        InputError: it has batch norm, whose statistics only GPUs can share.
    """
    if group.size == 1:
        return model
    has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    if has_batch_norm and device.type != "cuda":
        raise InputError("a model with batch norm is trained by several processes on GPUs only")
    if has_batch_norm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    ids = [device] if device.type == "cuda" else None
    # That of a depthwise convolution has other strides than DDP's memory for it; it is copied.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # Some models hold parameters that their loss does not depend on.
    return nn.parallel.DistributedDataParallel(model, ids, find_unused_parameters=has_batch_norm)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, of one that `shared` may have wrapped."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def unshared(model: nn.Module) -> AbstractContextManager:
    """Gradients that are added up in this block are averaged over the group only after it."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def set_part(model: nn.Module, part: Part | None) -> None:
    """Tell drop path which samples of a batch the next ones are."""
    for module in model.modules():
        if isinstance(module, DropPath):
            module.part = part
