"""TransUNet against its authors' code, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.transunet import TransUNet


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("TransUNet_64.json", 64),
        pytest.param("TransUNet.json", 224, marks=pytest.mark.slow),
    ],
)
def test_it_is_the_authors_model(file, size, whole: bool):
    check(lambda: TransUNet(size=size), file, whole=whole)


@pytest.mark.parametrize(("width", "num_classes"), [(0.0625, 1), (0.125, 4)])
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes):
    torch.manual_seed(0)
    model = TransUNet(num_classes=num_classes, width=width, size=(48, 80))
    images = torch.rand(2, 1, 48, 80)
    logits = model(images)
    assert logits.shape == (2, num_classes, 48, 80)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    again = TransUNet(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_sizes_that_it_cannot_take_are_refused():
    model = TransUNet(width=0.0625, size=32)
    with pytest.raises(InputError, match="TransUnet takes sizes divisible by 16, not 40x64"):
        model(torch.rand(1, 3, 40, 64))
    with pytest.raises(InputError, match="TransUnet was built for images of 32x32, not 32x48"):
        model(torch.rand(1, 3, 32, 48))


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"width 0\.007 leaves no channel"):
        TransUNet(width=0.007)
