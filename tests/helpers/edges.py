"""What every segmentation model keeps to, beside its golden values."""

from collections.abc import Callable

import pytest
import torch

from vmunet.architecture import Model
from vmunet.errors import InputError


def trains(model: Model, height: int, width: int, batch: int = 2) -> None:
    """Assert the logits' shape, finite gradients, and that `config` builds the model again."""
    images = torch.randn(batch, model.in_channels, height, width)
    classes = model.config["num_classes"]
    output = model.train()(images)
    outputs = list(output.values()) if isinstance(output, dict) else [output]
    assert all(logits.shape == (batch, classes, height, width) for logits in outputs)
    torch.stack([logits.square().mean() for logits in outputs]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    with torch.no_grad():
        assert model.eval()(images[:1]).shape == (1, classes, height, width)
    with torch.device("meta"):
        again = type(model)(**model.config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes


def refuses(build: Callable[[], Model], height: int, width: int, message: str) -> None:
    """Assert that images of this size are refused with this sentence."""
    with torch.device("meta"):
        model = build()
        with pytest.raises(InputError, match=message):
            model(torch.empty(1, model.in_channels, height, width))
