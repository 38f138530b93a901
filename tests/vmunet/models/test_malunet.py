"""MALUNet against the authors' values, and at the edges."""

import re

import pytest
import torch

from tests.helpers.edges import refuses, trains
from tests.helpers.rivals import check
from vmunet.errors import InputError
from vmunet.models.malunet import IEA, MALUNet

SEPARABLE = {"0": "conv1", "1": "norm_layer", "2": "conv2"}
GATED = {"gate": "w1", "value": "w2", "out": "wo"}
PATTERNS = {
    r"^(encoder|decoder)\.(\d)": lambda m: f"{m[1]}{int(m[2]) + 1}",
    r"^(encoder[123]|decoder[45])\.": r"\1.0.",
    r"^(encoder|decoder)_norms\.(\d)": lambda m: f"{m[1][0]}bn{int(m[2]) + 1}",
    r"^bridge\.spatial": "scab.satt.shared_conv2d.0",
    r"^bridge\.mix": "scab.catt.get_all_att",
    r"^bridge\.channel\.(\d)": lambda m: f"scab.catt.att{int(m[1]) + 1}",
    r"\.dilated\.(\d)": r".mda\1",
    r"\.gated\.(gate|value|out)\.(\d)": lambda m: f".gau.{GATED[m[1]]}.0.{SEPARABLE[m[2]]}",
    r"\.gated\.shortcut": ".gau.cw",
    r"\.keys": ".linear_0",
    r"\.values": ".linear_1",
    r"\.norm\.": ".norm_layer.",
    r"^head": "final",
}


def published(name: str) -> str:
    for pattern, replacement in PATTERNS.items():
        name = re.sub(pattern, replacement, name)
    return name


def test_golden() -> None:
    check(MALUNet, "malunet.json", adapt=torch.sigmoid, rename=published)


@pytest.mark.parametrize("classes", [1, 4])
def test_narrow_and_of_another_size(classes: int) -> None:
    trains(MALUNet(num_classes=classes, width=0.5), 96, 32)
    trains(MALUNet(num_classes=classes, width=0.3, in_channels=2), 32, 32, batch=1)


def test_the_memory_starts_as_one() -> None:
    for module in MALUNet().modules():
        if isinstance(module, IEA):
            assert torch.equal(module.keys.weight, module.values.weight.transpose(0, 1))
            expected = (2 / module.values.out_channels) ** 0.5
            assert module.keys.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_refusals() -> None:
    refuses(MALUNet, 64, 48, "^MALUNet takes sizes divisible by 32, not 64x48: ")
    for width in (0.0625, 0.125, 0.25):
        with pytest.raises(InputError, match=rf"^width {width} .* has 8; take a width above 0\.25"):
            MALUNet(width=width)
