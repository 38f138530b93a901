"""UTNetV2 against its authors' code, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.utnetv2 import UTNetV2


def test_it_is_the_authors_model():
    check(UTNetV2, "UTNetV2.json")


@pytest.mark.parametrize(("width", "num_classes"), [(0.0625, 1), (0.125, 4)])
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes):
    torch.manual_seed(0)
    model = UTNetV2(num_classes=num_classes, width=width)
    images = torch.rand(2, 1, 32, 48)
    model(images).square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    logits = model.eval()(images)
    assert logits.shape == (2, num_classes, 32, 48)
    again = UTNetV2(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), logits)


def test_a_size_that_it_cannot_halve_four_times_is_refused():
    with pytest.raises(InputError, match="UTNetV2 takes sizes divisible by 16, not 24x32"):
        UTNetV2(width=0.0625)(torch.rand(1, 3, 24, 32))


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        UTNetV2(width=0.01)
