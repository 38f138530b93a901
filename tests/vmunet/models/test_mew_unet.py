"""MEW-UNet against its authors' code, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.mew_unet import MEWUNet


def test_it_is_the_authors_model(whole: bool):
    check(MEWUNet, "MEWUNet.json", whole=whole)


@pytest.mark.parametrize(("num_classes", "size"), [(1, (32, 96)), (4, (64, 32))])
def test_small_models_of_other_sizes_train_every_parameter(num_classes, size):
    torch.manual_seed(0)
    model = MEWUNet(num_classes=num_classes, width=0.25)
    images = torch.rand(2, 1, *size)
    logits = model(images)
    assert logits.shape == (2, num_classes, *size)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    again = MEWUNet(**model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model.eval()(images))


def test_it_runs_in_bfloat16():
    model = MEWUNet(width=0.25).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.isfinite().all()


def test_what_it_cannot_take_is_refused():
    for width in (0.0625, 0.125):
        with pytest.raises(InputError, match=r"leaves no channel .* take a width above 0\.125"):
            MEWUNet(width=width)
    model = MEWUNet(width=0.25)
    with pytest.raises(InputError, match="MEW-UNet takes sizes divisible by 32, not 64x48"):
        model(torch.rand(1, 3, 64, 48))
