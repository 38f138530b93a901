"""Parameters and multiply-accumulates of the models, counted as in papers and in full.

The paper's FLOPs column counts the multiply-accumulates of nn.Linear and nn.Conv2d plus 4 for each
element of a LayerNorm. It leaves out what its counter does not see: SS2D's projections to delta,
B and C, which are bare parameters, and the scan itself.

For the other models `counted` runs one image through the model on torch's meta device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vmunet.architecture import Model
from vmunet.model import K, VMUNet

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)


@dataclass(frozen=True)
class Counted:
    """Cost of one forward pass of one image of any model.

    Attributes:
        parameters: all values of its weights, used or not.
        macs_paper: multiply-accumulates as the counter thop 0.1.1 finds them, whose figures the
            papers print: convolutions and linear layers, 4 for each element of a batch norm or
            LayerNorm. It counts a transposed convolution by its output, which is 4 times too many
            if the stride is 2, and sees no product outside these layers, such as attention's.
        macs_complete: multiply-accumulates of every convolution and matrix product.
    """

    parameters: int
    macs_paper: int
    macs_complete: int


def counted(model: Model, size: Sequence[int]) -> Counted:
    """Cost of a model on the meta device for one image of `size`, its height and width in px."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, CONVOLUTIONS):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, TRANSPOSED):
            total += output.numel() * module.weight[:, 0].numel()
        elif isinstance(module, NORMS):
            total += 4 * output.numel()

    leaves = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED, *NORMS)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, leaves)]
    flops = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), flops:
            model.eval()(torch.zeros(1, model.in_channels, *size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    return Counted(parameters, total, flops.get_total_flops() // 2)


@dataclass(frozen=True)
class Complexity:
    """Cost of one forward pass of one image.

    Attributes:
        parameters: trainable values.
        macs_paper: multiply-accumulates of Linear, Conv2d and LayerNorm (the paper's FLOPs).
        macs_projections: multiply-accumulates of SS2D's projections to delta, B and C.
        macs_scan: multiply-accumulates of the scan, 9 L D N + L D for each direction.
    """

    parameters: int
    macs_paper: int
    macs_projections: int
    macs_scan: int

    @property
    def macs_complete(self) -> int:
        return self.macs_paper + self.macs_projections + self.macs_scan


def complexity(
    depths: Sequence[int] = (2, 2, 2, 2),
    depths_decoder: Sequence[int] = (2, 2, 2, 1),
    dims: Sequence[int] = (96, 192, 384, 768),
    size: int = 256,
    num_classes: int = 1,
    in_channels: int = 3,
    d_state: int = 16,
) -> Complexity:
    """Cost of VM-UNet for one `(1, in_channels, size, size)` image."""
    with torch.device("meta"):
        model = VMUNet(in_channels, num_classes, depths, depths_decoder, dims, d_state)
    parameters = sum(p.numel() for p in model.parameters())

    def pixels(stage: int) -> int:
        return (size // 4 // 2**stage) ** 2

    layers = projections = scan = 0
    for stage, d in enumerate(dims):
        L, D, R = pixels(stage), 2 * d, math.ceil(d / 16)
        blocks = depths[stage] + depths_decoder[len(dims) - 1 - stage]
        linear = L * (d * 2 * D + D * d)  # in_proj, out_proj
        layers += blocks * (linear + 9 * L * D + 4 * L * (d + D))  # conv2d, ln_1 and out_norm
        projections += blocks * K * L * D * (R + 2 * d_state + R)  # x_proj, dt_proj
        scan += blocks * K * (9 * L * D * d_state + L * D)
    for stage, d in enumerate(dims[:-1]):
        L = pixels(stage + 1)
        layers += L * (4 * d * 2 * d + 4 * 4 * d)  # patch merging: reduction, norm
        layers += L * (2 * d * 4 * d) + 4 * pixels(stage) * d  # patch expanding: expand, norm
    C, L = dims[0], pixels(0)
    layers += L * C * 16 * in_channels + 4 * L * C  # patch embedding
    layers += L * C * 4 * C + 4 * size**2 * (C // 4) + size**2 * (C // 4) * num_classes  # final
    return Complexity(parameters, layers, projections, scan)
