"""The images of a run: those to train on, loaded ahead by workers, and those that select an epoch.

On a processor there are no workers, which would only take cores from the scan, and nothing is kept.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from vmunet.training.distributed import ALONE, Group
from vmunet.training.processor import threads_allowed
from vmunet.training.step import Batch

MOST_WORKERS = 8
# Pixels or voxels of selection images that the model sees at once, unless a batch has more: 128
# images of 256 px.
PIXELS_AT_ONCE = 1 << 23


class TrainingBatches:
    """Batches of augmented images, in an order and with draws that depend on (seed, epoch).

    The workers live as long as the run. They read the epoch from the dataset's shared memory.

    Args:
        images: items `(image, target)`, with `set_epoch`.
        batch_size: samples in a batch; the last one of an epoch may be smaller.
        seed: the run's.
        device: on which the model is.
        group: the processes of the run; each gets its part of every batch, and one sample of the
            batch if its part is empty.
    """

    def __init__(
        self,
        images: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        self._images = cast(Any, images.dataset if isinstance(images, Subset) else images)
        self._order = EpochOrder(len(cast(Any, images)), seed)
        self._ahead: Iterator[Batch] | None = None
        is_cuda = device.type == "cuda"
        workers = max(1, worker_count() // group.size) if is_cuda else 0
        self.sizes = [len(batch) for batch in range_batches(len(self._order), batch_size)]
        self._loader = DataLoader(
            images,
            batch_sampler=Parts(self._order, batch_size, group),
            num_workers=workers,
            pin_memory=is_cuda,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._loader)

    def of(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in the host's memory; take all before the next call."""
        batches, self._ahead = self._ahead or self._begin(epoch), None
        return batches

    def load_ahead(self, epoch: int) -> None:
        """Let the workers begin with the next epoch to be taken; without workers do nothing."""
        if self._loader.num_workers:
            self._ahead = self._begin(epoch)

    def _begin(self, epoch: int) -> Iterator[Batch]:
        self._images.set_epoch(epoch)
        self._order.epoch = epoch
        return iter(self._loader)


class EpochOrder(Sampler[int]):
    """All indices in an order drawn from (seed, epoch); set `epoch` before iterating."""

    def __init__(self, count: int, seed: int) -> None:
        self.epoch, self._count, self._seed = 0, count, seed

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix(self._seed, self.epoch))
        return iter(torch.randperm(self._count, generator=generator).tolist())


class Parts(Sampler[list[int]]):
    """A process's part of each batch: indices in the order of `order`."""

    def __init__(self, order: EpochOrder, batch_size: int, group: Group) -> None:
        self._order, self._batch_size, self._group = order, batch_size, group

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self._order)
        for batch in range_batches(len(order), self._batch_size):
            part = self._group.part(len(batch))
            yield [order[i] for i in batch[part.first : part.last] or batch[:1]]


def range_batches(count: int, batch_size: int) -> list[range]:
    """Batches of the numbers below `count`; the last one may be smaller."""
    return [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]


def own_batches(images: Dataset, batch_size: int, group: Group) -> Dataset:
    """The images of every `group.size`-th batch, of which this process scores them."""
    if group.size == 1:
        return images
    batches = range_batches(len(cast(Any, images)), batch_size)[group.rank :: group.size]
    return Subset(images, [i for batch in batches for i in batch])


class SelectionImages:
    """The images whose mean loss selects the epoch: iterate for batches of them.

    On a GPU they are read once, and kept on it if they take at most a quarter of its free memory,
    else in the host's pinned memory if they take at most an eighth of the host's. So an item must
    be the same in each epoch.

    Args:
        images: items `(image, target)`.
        batch_size: of the run. A batch here has a multiple of it where images are kept.
        device: on which the model is.
    """

    def __init__(self, images: Dataset, batch_size: int, device: torch.device) -> None:
        self._batch_size, self._device = batch_size, device
        self.at_once = batch_size
        is_cuda = device.type == "cuda"
        self._loader = DataLoader(images, batch_size, pin_memory=is_cuda)
        self._kept: tuple[Kept, Kept] | None = None
        self._count = len(cast(Any, images))
        if is_cuda and self._count:
            self._keep(images, torch.cuda.mem_get_info(device)[0] // 4)

    def _keep(self, images: Dataset, room: int) -> None:
        image, target = images[0]
        count = self._count
        if count * (image.nbytes + target.nbytes) <= host_bytes() / 8:
            loader = DataLoader(images, self._batch_size, num_workers=worker_count())
            self._kept = keep(loader, self._device, room)
            self.at_once = most_at_once(self._batch_size, count, image[0].numel())

    def __len__(self) -> int:
        """The number of images."""
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        """Batches of `at_once` images and their targets."""
        if self._kept is None:
            yield from self._loader
            return
        images, targets = self._kept
        for first in range(0, len(images), self.at_once):
            last = first + self.at_once
            yield images.rows(first, last, self._device), targets.rows(first, last, self._device)

    def halve(self) -> bool:
        """Take half as many images at once; False if that is less than a batch."""
        if self.at_once <= self._batch_size:
            return False
        self.at_once //= 2
        return True


class Kept:
    """Samples in one tensor, as bytes if that loses nothing, such as of images and labels.

    Args:
        values: (samples, ...).
        device: where they are kept, if they take at most `room` bytes; else in the host's memory,
            pinned if the device is a GPU.
    """

    def __init__(self, values: Tensor, device: torch.device, room: int) -> None:
        self._dtype = values.dtype
        as_bytes = values.to(torch.uint8)
        if torch.equal(as_bytes.to(values.dtype), values):
            values = as_bytes
        if values.nbytes <= room:
            values = values.to(device)
        elif device.type == "cuda":
            values = values.pin_memory()
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, first: int, last: int, device: torch.device) -> Tensor:
        """Samples from `first` to before `last`, on the device and of their own type."""
        return self.values[first:last].to(device, non_blocking=True).to(self._dtype)


def keep(batches: Iterable[Batch], device: torch.device, room: int) -> tuple[Kept, Kept]:
    """All images and targets; each stays on the device if it takes at most half of `room` bytes."""
    images, targets = zip(*batches, strict=True)
    return Kept(torch.cat(images), device, room // 2), Kept(torch.cat(targets), device, room // 2)


def most_at_once(batch_size: int, count: int, pixels: int) -> int:
    """The batch size times a power of two: up to PIXELS_AT_ONCE, and to what `count` needs.

    Args:
        pixels: of an image, or voxels of a patch.
    """
    most = batch_size
    while most < count and 2 * most * pixels <= PIXELS_AT_ONCE:
        most *= 2
    return most


def sample_batch(images: Dataset, batch_size: int, device: torch.device) -> Batch:
    """A batch on the device that repeats the first sample, to try steps with."""
    size = min(batch_size, len(cast(Any, images)))
    image, target = (part.to(device).expand(size, *part.shape).contiguous() for part in images[0])
    return image, target


def worker_count() -> int:
    """Processes that load images: at most the cores that this process may use, or its share."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(MOST_WORKERS, cores, threads_allowed() or cores)


def host_bytes() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def mix(seed: int, epoch: int) -> int:
    """A different generator seed for every (seed, epoch)."""
    return (seed * 1_000_003 + epoch) % 2**63
