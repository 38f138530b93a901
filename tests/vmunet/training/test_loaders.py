"""The batches of an epoch, with and without workers, and the images that select an epoch."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from tests.helpers.discs import CPU, LOSS, SETTINGS, Discs, tiny_model
from vmunet.data.arrays import ArrayDataset
from vmunet.data.augment import Augment
from vmunet.protocols import PAPER, SOUND, Protocol
from vmunet.training import loaders
from vmunet.training.loaders import (
    Kept,
    SelectionImages,
    TrainingBatches,
    keep,
    mix,
    most_at_once,
    worker_count,
)
from vmunet.training.loop import score
from vmunet.training.losses import training_loss
from vmunet.training.step import Batch, mean_loss

GPU = torch.device("cuda")  # batches are made in the host's memory, so none needs to be there


def arrays(folder: Path, protocol: Protocol) -> ArrayDataset:
    """Ten images of noise with masks, augmented."""
    random = np.random.default_rng(0)
    (folder / "train").mkdir()
    np.save(folder / "train/images.npy", random.integers(0, 256, (10, 32, 32, 3), np.uint8))
    np.save(folder / "train/masks.npy", random.integers(0, 256, (10, 32, 32), np.uint8))
    (folder / "train/ids.txt").write_text("".join(f"i{i}\n" for i in range(10)))
    return ArrayDataset(folder, "train", Augment(protocol, 7), 7)


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("protocol", [PAPER, SOUND], ids=lambda p: p.name)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_seed_and_epoch_alone(
    tmp_path: Path, protocol: Protocol, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a loader without workers that is made anew for each epoch."""
    images = arrays(tmp_path, protocol)
    subset = Subset(images, [1, 2, 3, 5, 7, 8, 9])
    monkeypatch.setattr(loaders, "worker_count", lambda: workers)
    batches = TrainingBatches(subset, 3, 11, GPU)
    for epoch in (4, 5, 7):  # a resumed run begins anywhere
        images.set_epoch(epoch)
        generator = torch.Generator().manual_seed(mix(11, epoch))
        order = torch.randperm(7, generator=generator).tolist()
        expected = list(DataLoader(subset, 3, sampler=order))
        found = list(batches.of(epoch))
        assert len(found) == len(batches) == 3
        for (image, mask), (its_image, its_mask) in zip(found, expected, strict=True):
            assert torch.equal(image, its_image)
            assert torch.equal(mask, its_mask)
        batches.load_ahead({4: 5, 5: 7}.get(epoch, 8))


def test_a_processor_has_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "worker_count", lambda: pytest.fail("no worker is needed"))
    images = Discs()
    batches = TrainingBatches(images, 4, 0, CPU)
    batches.load_ahead(3)
    assert images.epoch == 0
    assert [len(image) for image, _ in batches.of(1)] == [4, 4, 2]


def test_workers_keep_to_the_share_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMUNET_THREADS", raising=False)
    for cores, share, expected in ((6, "", 6), (64, "", 8), (64, "3", 3), (2, "5", 2), (1, "", 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        monkeypatch.setenv("VMUNET_THREADS", share)
        assert worker_count() == expected


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (torch.randint(0, 256, (5, 3, 4, 4)).float(), torch.uint8),
        (torch.randint(0, 9, (5, 4, 4)), torch.uint8),
        (torch.rand(5, 1, 4, 4), torch.float32),
        (torch.randint(0, 300, (5, 4, 4)) + 256, torch.int64),
        (-torch.ones(5, 4), torch.float32),
        (torch.full((5, 4), float("nan")), torch.float32),
    ],
)
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_kept_samples_keep_their_bits(values: Tensor, dtype: torch.dtype, room: int) -> None:
    kept = Kept(values, CPU, room)
    assert kept.values.dtype == dtype
    rows = kept.rows(2, 9, CPU)
    assert rows.dtype == values.dtype
    assert torch.equal(rows.nan_to_num(-2.0), values[2:].nan_to_num(-2.0))


def test_samples_that_are_too_large_stay_in_the_hosts_memory() -> None:
    meta = torch.device("meta")  # a device that is not the host's
    values = torch.arange(8.0)
    assert Kept(values, meta, room=8).values.device == meta
    assert Kept(values, meta, room=7).values.device == CPU
    assert Kept(values + 0.5, meta, room=31).values.device == CPU


def test_images_at_once() -> None:
    assert most_at_once(32, 650, 256**2) == 128
    assert most_at_once(32, 650, 512**2) == 32
    assert most_at_once(32, 20, 256**2) == 32
    assert most_at_once(32, 40, 64**2) == 64
    assert most_at_once(6, 500, 2**24) == 6


class Kind(Dataset):
    """Images and the targets of the loss of one or of three classes."""

    def __init__(self, classes: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randint(0, 256, (11, 3, 32, 32), generator=generator).float()
        labels = torch.randint(0, 3, (11, 32, 32), generator=generator)
        self.targets = labels if classes > 1 else (labels > 0).float()[:, None]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.targets[index]


def kept_on_cpu(images: Dataset, batch_size: int) -> SelectionImages:
    """Selection images as on a GPU, with a processor as the device."""
    selection = SelectionImages(images, batch_size, CPU)
    selection._keep(images, 1 << 30)
    return selection


@pytest.mark.parametrize("classes", [1, 3])
def test_more_images_at_once_have_the_same_mean_loss(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of several classes, whose Dice is pooled over batches of the run's size."""
    monkeypatch.setattr(loaders, "worker_count", lambda: 0)
    images, loss = Kind(classes), training_loss(classes, "logits")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1)
    )
    selection = kept_on_cpu(images, SETTINGS.batch_size)
    assert [len(part) for part, _ in selection] == [11]
    expected = mean_loss(model, DataLoader(images, 4), loss, SETTINGS, CPU)
    assert score(model, selection, loss, SETTINGS, CPU) == pytest.approx(expected, rel=1e-6)
    pooled = replace(SETTINGS, batch_size=16)
    other = mean_loss(model, DataLoader(images, 16), loss, pooled, CPU)
    assert (other == pytest.approx(expected, rel=1e-6)) == (classes == 1)


def test_fewer_images_at_once_if_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "worker_count", lambda: 0)
    seen = []

    class Small(nn.Conv2d):
        most = 7

        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            if len(images) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(images)

    model, images = Small(3, 1, 1), Kind(1)
    selection = kept_on_cpu(images, 4)
    loss = score(model, selection, LOSS, SETTINGS, CPU)
    assert seen == [11, 8, 4, 4, 3]
    assert loss == score(model, SelectionImages(images, 4, CPU), LOSS, SETTINGS, CPU)
    model.most = 3
    with pytest.raises(torch.OutOfMemoryError):
        score(model, selection, LOSS, SETTINGS, CPU)


def test_a_processor_reads_the_images_in_each_epoch() -> None:
    images = Discs(6)
    selection = SelectionImages(images, 4, CPU)
    assert [len(part) for part, _ in selection] == [4, 2]
    first = torch.cat([image for image, _ in selection])
    images.set_epoch(1)
    assert not torch.equal(torch.cat([image for image, _ in selection]), first)


def test_reading_ahead_fills_no_more_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "host_bytes", lambda: 1000)
    selection = SelectionImages(Kind(1), 4, CPU)
    selection._keep(Kind(1), 1 << 30)
    assert [len(part) for part, _ in selection] == [4, 4, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("room", [0, 1 << 30])
def test_kept_images_have_the_same_mean_loss_on_a_gpu(room: int) -> None:
    images, model = Kind(1), tiny_model().to(GPU)
    selection = SelectionImages(images, 4, GPU)
    selection._keep(images, room)
    expected = mean_loss(model, DataLoader(images, 4), LOSS, SETTINGS, GPU)
    assert score(model, selection, LOSS, SETTINGS, GPU) == pytest.approx(expected, rel=1e-5)
    pair = keep(DataLoader(images, 4), GPU, room)
    assert all(part.values.is_cuda == bool(room) for part in pair)
    assert all(part.values.is_pinned() != bool(room) for part in pair)
