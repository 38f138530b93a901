"""TransDeepLab against its authors' code, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.transdeeplab import TransDeepLab


def test_it_is_the_authors_model():
    check(TransDeepLab, "TransDeepLab.json")


@pytest.mark.parametrize(
    ("size", "window", "pyramid"),
    [
        (224, [7, 7], [[7, 7], [14, 14]]),
        (256, [8, 8], [[8, 8], [16, 16]]),
        (64, [8, 8], [[4, 4], [4, 4]]),
        ((96, 64), [6, 8], [[6, 4], [6, 4]]),
    ],
)
def test_the_windows_follow_the_size(size, window, pyramid):
    with torch.device("meta"):
        model = TransDeepLab(size=size)
    assert model.config["window"] == window
    assert [level.blocks[0].window for level in model.aspp.layers] == pyramid


@pytest.mark.parametrize(
    ("width", "num_classes", "size", "window"),
    [(0.0625, 1, 64, 2), (0.125, 4, (96, 64), None), (0.25, 9, 16, None)],
)
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes, size, window):
    torch.manual_seed(0)
    model = TransDeepLab(num_classes=num_classes, width=width, size=size, window=window)
    images = torch.rand(2, 1, *model.size)
    logits = model(images)
    assert logits.shape == (2, num_classes, *model.size)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    again = TransDeepLab(**model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model.eval()(images))


def test_what_it_cannot_take_is_refused():
    with pytest.raises(InputError, match="TransDeepLab takes sizes divisible by 16, not 224x100"):
        TransDeepLab(size=(224, 100))
    with pytest.raises(InputError, match="windows of 7x7 do not divide a map of 64x64"):
        TransDeepLab(size=256, window=7)
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        TransDeepLab(width=0.01)
    model = TransDeepLab(width=0.0625, size=32)
    with pytest.raises(InputError, match="TransDeepLab was built for images of 32x32, not 64x64"):
        model(torch.rand(1, 3, 64, 64))
