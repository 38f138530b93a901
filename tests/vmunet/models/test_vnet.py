"""V-Net: the port against its golden values, the authors' version by its number of parameters."""

import re

import pytest
import torch

from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.vnet import PORT, VNet

PORT_NAMES = [
    (r"^first\.convs\.(\w+)", r"in_tr.\1"),
    (r"^first\.act", "in_tr.relu1"),
    (r"^last\.(\w+)", r"out_tr.\1"),
    (r"^head", "out_tr.conv2"),
    (r"^down\.(\d)", lambda m: f"down_tr{32 * 2 ** int(m[1])}"),
    (r"^up\.(\d)", lambda m: f"up_tr{256 // 2 ** int(m[1])}"),
    (r"\.act\.weight$", ".relu2.weight"),  # after the sum; the others are renamed below
    (r"\.(down|up)\.conv", r".\1_conv"),
    (r"\.(?:down|up)\.norm", ".bn1"),
    (r"\.(?:down|up)\.relu2", ".relu1"),
    (r"\.convs\.(\d)\.relu2", r".ops.\1.relu1"),
    (r"\.convs\.(\d)", r".ops.\1"),
    (r"^out_tr\.relu2", "out_tr.relu1"),
    (r"\.conv\.", ".conv1."),
    (r"\.norm\.", ".bn1."),
]


def port_name(name):
    for pattern, replacement in PORT_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def log_probabilities(logits):
    return logits.log_softmax(1).movedim(1, -1).flatten(0, -2)


def test_the_port_is_the_published_one(whole: bool):
    check(lambda: VNet(**PORT), "vnet3d_macy.json", log_probabilities, port_name, whole=whole)


@pytest.mark.parametrize(("num_classes", "parameters"), [(2, 61_982_682), (9, 62_010_780)])
def test_the_default_has_the_parameters_of_the_authors_layers(num_classes, parameters):
    with torch.device("meta"):
        model = VNet(num_classes=num_classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("version", "last"), [({}, False), (PORT, True)])
def test_only_the_port_has_a_prelu_between_the_last_convolution_and_the_sum(version, last):
    model = VNet(width=0.0625, **version)
    for stage in (*model.down, *model.up):
        acts = [hasattr(unit, "act") for unit in stage.convs]
        assert acts == [True] * (len(acts) - 1) + [last]


@pytest.mark.parametrize("version", [{}, PORT])
@pytest.mark.parametrize(("width", "num_classes"), [(0.0625, 2), (0.125, 4)])
def test_small_models_of_other_sizes_train_every_parameter(width, num_classes, version):
    torch.manual_seed(0)
    model = VNet(num_classes=num_classes, width=width, **version)
    volumes = torch.rand(1, 1, 16, 32, 48)
    model(volumes).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    logits = model.eval()(volumes)
    assert logits.shape == (1, num_classes, 16, 32, 48)
    again = VNet(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(volumes), logits)


def test_several_channels_are_repeated_in_turn():
    model = VNet(in_channels=3, width=0.25)  # 4 channels in the first stage: 0, 1, 2, 0
    assert model(torch.rand(1, 3, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


def test_a_volume_of_one_channel_is_not_repeated():
    with pytest.raises(InputError, match="V-Net was made for 3 channels, the volumes have 1"):
        VNet(in_channels=3, width=0.0625)(torch.rand(1, 1, 16, 16, 16))


def test_images_and_sizes_that_it_cannot_halve_are_refused():
    model = VNet(width=0.0625)
    with pytest.raises(InputError, match=r"V-Net takes \(batch, channels, depth, height, width\)"):
        model(torch.rand(1, 1, 32, 32))
    with pytest.raises(InputError, match="V-Net takes sizes divisible by 16, not 16x24x32"):
        model(torch.rand(1, 1, 16, 24, 32))


def test_a_width_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"width 0\.01 leaves no channel"):
        VNet(width=0.01)
