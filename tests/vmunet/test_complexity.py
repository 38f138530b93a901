"""Parameters and multiply-accumulates against the authors' counts and against a counted pass."""

import json

import pytest
import torch
from torch import nn

from tests.helpers.paths import ROOT
from vmunet import VMUNet
from vmunet.complexity import complexity
from vmunet.model import SS2D, VSSBlock

GOLDEN = json.loads((ROOT / "tests/golden" / "architecture.json").read_text())


def depths_of(name: str) -> tuple[list[int], list[int]]:
    encoder, decoder = name.strip("{}").split("-")
    return [int(d) for d in encoder.split(",")], [int(d) for d in decoder.split(",")]


@pytest.mark.parametrize("name", GOLDEN["parameters"])
def test_table_v(name: str) -> None:
    cost = complexity(*depths_of(name))
    assert cost.parameters == GOLDEN["parameters"][name]
    golden = GOLDEN["gmacs_256_linear_conv_layernorm"][name]
    assert cost.macs_paper / 1e9 == pytest.approx(golden, rel=1e-3)


def test_complete_count() -> None:
    cost = complexity()
    assert cost.macs_projections / 1e9 == pytest.approx(1.2205, rel=1e-3)
    assert cost.macs_scan / 1e9 == pytest.approx(2.965, rel=1e-3)
    assert cost.macs_complete / 1e9 == pytest.approx(8.297, rel=1e-3)


def test_layers_against_a_counted_forward_pass() -> None:
    """Count Linear, Conv2d and LayerNorm by hooks on a real pass of a small model."""
    dims, size = (8, 16, 32, 64), 64
    model = VMUNet(dims=dims, num_classes=3, depths=(1, 2, 1, 1), depths_decoder=(1, 1, 2, 1))
    counted = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Linear):
            counted += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            counted += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.LayerNorm):
            counted += 4 * output.numel()
        elif isinstance(module, SS2D):  # its own convolution and norm are fused with what follows
            inner = output[..., 0].numel() * module.d_inner
            counted += inner * module.conv2d.weight[0].numel() + 4 * inner
        elif isinstance(module, VSSBlock) and inputs[1] is not None:
            counted += 4 * inputs[0].numel()  # its norm is fused with the sum before it

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    cost = complexity((1, 2, 1, 1), (1, 1, 2, 1), dims, size, num_classes=3)
    assert cost.macs_paper == counted
