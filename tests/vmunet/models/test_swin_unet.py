"""Swin U-Net against its authors' code, at other sizes and widths."""

from itertools import chain

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.swin_unet import SwinUNet


@pytest.mark.parametrize(
    ("file", "arguments"),
    [("SwinUNet_64w2.json", {"size": 64, "window": 2}), ("SwinUNet.json", {})],
)
def test_it_is_the_authors_model(file, arguments):
    check(lambda: SwinUNet(**arguments), file, rename=lambda name: f"swin_unet.{name}")


@pytest.mark.parametrize(
    ("size", "window"),
    [(224, [7, 7]), (256, [8, 8]), (512, [8, 8]), (160, [5, 5]), (64, [8, 8]), ((96, 32), [6, 8])],
)
def test_the_window_follows_the_size(size, window):
    with torch.device("meta"):
        assert SwinUNet(size=size).config["window"] == window


@pytest.mark.parametrize(
    ("width", "num_classes", "size"), [(0.0625, 1, 64), (0.125, 4, (96, 32)), (0.25, 9, (64, 96))]
)
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes, size):
    torch.manual_seed(0)
    model = SwinUNet(num_classes=num_classes, width=width, size=size)
    images = torch.rand(2, 1, *model.size)
    logits = model(images)
    assert logits.shape == (2, num_classes, *model.size)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    again = SwinUNet(**model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model.eval()(images))


def test_drop_path_of_the_decoder_mirrors_the_encoder():
    with torch.device("meta"):
        model = SwinUNet()
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in model.layers]
    assert [*chain(*rates)] == pytest.approx([0.2 * i / 7 for i in range(8)])
    up = [[block.drop_path.rate for block in stage.blocks] for stage in model.layers_up[1:]]
    assert up == rates[2::-1]


def test_what_it_cannot_take_is_refused():
    with pytest.raises(InputError, match="Swin U-Net takes sizes divisible by 32, not 224x100"):
        SwinUNet(size=(224, 100))
    with pytest.raises(InputError, match="windows of 7x7 do not divide a map of 64x64"):
        SwinUNet(size=256, window=7)
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        SwinUNet(width=0.01)
    model = SwinUNet(width=0.0625, size=32)
    with pytest.raises(InputError, match="Swin U-Net was built for images of 32x32, not 64x64"):
        model(torch.rand(1, 3, 64, 64))
