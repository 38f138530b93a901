"""A tiny training: bright discs on noise, and a small VM-UNet."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vmunet.model import VMUNet
from vmunet.settings import TrainSettings
from vmunet.training.losses import training_loss

SETTINGS = TrainSettings(epochs=4, t_max=2, batch_size=4, dims=(8, 16, 32, 64), learning_rate=3e-3)
CPU = torch.device("cpu")
LOSS = training_loss(1, "probabilities")


class Discs(Dataset):
    """Bright discs on noise; a different view of each in every epoch.

    In the epoch `broken`, counted from 0, image 3 is NaN.
    """

    def __init__(self, count: int = 10, size: int = 32, broken: int = -1) -> None:
        self.count, self.size, self.broken = count, size, broken
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        x, y, r = (torch.rand(3, generator=generator) * 8 + torch.tensor([12, 12, 4])).tolist()
        rows = torch.arange(self.size)
        disc = ((rows[:, None] - y) ** 2 + (rows - x) ** 2 < r**2).float()[None]
        noise = 60 * torch.rand(3, self.size, self.size, generator=generator)
        if self.epoch == self.broken and index == 3:
            noise[0, 0, 0] = float("nan")
        return 120 * disc + noise, disc


def tiny_model(seed: int = 0) -> VMUNet:
    torch.manual_seed(seed)
    return VMUNet(dims=SETTINGS.dims, depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))
