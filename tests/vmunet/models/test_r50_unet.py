"""R50 U-Net against TransUNet's parts put together, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.r50_unet import R50UNet


def test_it_is_made_of_the_authors_parts():
    check(R50UNet, "r50unet_transunet_parts.json")


@pytest.mark.parametrize(("width", "num_classes"), [(0.0625, 1), (0.125, 4)])
def test_small_models_train_every_parameter(width, num_classes):
    torch.manual_seed(0)
    model = R50UNet(num_classes=num_classes, width=width)
    images = torch.rand(2, 1, 48, 80)
    logits = model(images)
    assert logits.shape == (2, num_classes, 48, 80)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    again = R50UNet(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_sizes_that_it_cannot_take_are_refused():
    model = R50UNet(width=0.0625)
    with pytest.raises(InputError, match="R50 U-Net takes sizes divisible by 16, not 40x64"):
        model(torch.rand(1, 3, 40, 64))
    with pytest.raises(InputError, match="the ResNet takes sizes from 32 on, not 16x64"):
        model(torch.rand(1, 3, 16, 64))
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 9, 32, 32)


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        R50UNet(width=0.01)
