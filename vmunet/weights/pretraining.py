"""A short pre-training of VMamba, for widths that the published weights do not fit."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vmunet.errors import InputError
from vmunet.model import Encoder, init_linear_layers

VMAMBA_DEPTHS = {"vmamba-t": (2, 2, 9, 2), "vmamba-s": (2, 2, 27, 2)}


class VMambaClassifier(Encoder):
    """VMamba v0: VM-UNet's encoder, a norm, mean pooling and a linear head.

    `(batch, channels, height, width)` images in 0..255 to `(batch, num_classes)` logits.
    """

    def __init__(
        self,
        num_classes: int,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        in_channels: int = 3,
        d_state: int = 16,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_channels, depths, dims, d_state, drop_path_rate)
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)
        init_linear_layers(self)

    def forward(self, images: Tensor) -> Tensor:
        x, _ = self.encode(images)
        return self.head(self.norm(x).mean(dim=(1, 2)))


def pretrain(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    states: int,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    steps: int,
    seed: int,
    label: str,
) -> VMambaClassifier:
    """Train a VMamba classifier for a few steps, if the published weights do not fit.

    Args:
        states: state size of the scan.
        batch: a function from the step's index to images `(batch, 3, h, w)` in 0..255 and labels
            `(batch, classes)`, each 0 or 1.
        label: text of the progress bar.

    Raises:
        InputError: the loss is not finite.
    """
    torch.manual_seed(seed)
    classes = batch(0)[1].shape[1]
    model = VMambaClassifier(classes, depths, dims, d_state=states).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    for step in tqdm(range(steps), desc=label, unit="step", disable=None):
        images, labels = batch(step)
        loss = F.binary_cross_entropy_with_logits(model(images), labels)
        if not torch.isfinite(loss):
            raise InputError(f"{label}: the pre-training loss became {loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval()
