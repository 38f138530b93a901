"""TransFuse against its authors' code, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.transfuse import TransFuse

PUBLISHED = ("fused_coarse", "transformer", "fused")  # map_x, map_1, map_2


def numbered(outputs):
    return {f"out{i}": outputs[name] for i, name in enumerate(PUBLISHED)}


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("TransFuse_64.json", 64),
        ("TransFuse_192x256.json", (192, 256)),
        ("TransFuse.json", 256),
    ],
)
def test_it_is_the_authors_model(file, size):
    check(
        lambda: TransFuse(size=size),
        file,
        adapt=numbered,
        run=lambda model, images: model.outputs(images),
    )


@pytest.mark.parametrize(("width", "num_classes"), [(0.0625, 1), (0.125, 4)])
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes):
    torch.manual_seed(0)
    model = TransFuse(num_classes=num_classes, width=width, size=(32, 48))
    images = torch.rand(2, 1, 32, 48)
    outputs = model(images)
    assert outputs.keys() == model.heads.keys()
    loss = sum(weight * outputs[name].square().mean() for name, weight in model.heads.items())
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    logits = model.eval()(images)
    assert logits.shape == (2, num_classes, 32, 48)
    assert torch.equal(logits, model.outputs(images)["fused"])
    again = TransFuse(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), logits)


def test_a_size_that_it_was_not_built_for_is_refused():
    model = TransFuse(width=0.0625, size=32)
    with pytest.raises(InputError, match="TransFuse was built for images of 32x32, not 32x48"):
        model(torch.rand(1, 3, 32, 48))
    with pytest.raises(InputError, match="TransFuse takes sizes divisible by 16, not 24x32"):
        model(torch.rand(1, 3, 24, 32))


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        TransFuse(width=0.01)
