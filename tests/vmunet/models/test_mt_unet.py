"""MT-UNet against its authors' code, at other sizes and widths."""

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.mt_unet import MTUNet
from vmunet.models.parts.mixed_transformer import pad_to_windows


def test_it_is_the_authors_model(whole: bool):
    check(MTUNet, "MTUNet.json", whole=whole)


@pytest.mark.parametrize(
    ("width", "num_classes", "size"), [(0.0625, 1, 64), (0.125, 4, (32, 96)), (0.25, 9, (96, 64))]
)
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes, size):
    torch.manual_seed(0)
    model = MTUNet(num_classes=num_classes, width=width, size=size)
    images = torch.rand(2, 1, *model.size)
    logits = model(images)
    assert logits.shape == (2, num_classes, *model.size)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    again = MTUNet(**model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model.eval()(images))


def test_only_the_axial_attentions_output_layer_is_never_used():
    with torch.device("meta"):
        model = MTUNet()
    unused = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert len(unused) == 20
    assert all(".global_atten.out." in name for name in unused)


@pytest.mark.parametrize("size", [(6, 7), (1, 7), (4, 7), (8, 4)])
def test_padding_copies_the_last_rows_and_columns_into_the_corner(size):
    h, w = size
    x = torch.rand(2, h, w, 3)
    padded = pad_to_windows(x)
    assert torch.equal(padded[:, :h, :w], x)
    assert not padded[:, h:, :w].any()
    assert not padded[:, :h, w:].any()
    corner = padded[:, h:, w:]
    if corner.numel():
        _, rows, columns, _ = x[:, -corner.shape[1] :, -corner.shape[2] :].shape
        assert torch.equal(corner[:, -rows:, -columns:], x[:, -rows:, -columns:])
        assert not corner[:, :-rows].any()


def test_what_it_cannot_take_is_refused():
    with pytest.raises(InputError, match="MT-UNet takes sizes divisible by 32, not 224x100"):
        MTUNet(size=(224, 100))
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        MTUNet(width=0.01)
    model = MTUNet(width=0.0625, size=32)
    with pytest.raises(InputError, match="MT-UNet was built for images of 32x32, not 64x64"):
        model(torch.rand(1, 3, 64, 64))
