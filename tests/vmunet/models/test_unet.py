"""The U-Nets against four published ones, and at the edges."""

import pytest
import torch
from torch import Tensor

from tests.helpers.edges import refuses, trains
from tests.helpers.rivals import check, read
from tests.helpers.unet_names import buda, lee, milesial, nested
from vmunet.errors import InputError
from vmunet.models.unet import UPS, UNet, UNet34M


class UpsampledFirst(UNet):
    """The other order of the channels, which mateuszbuda's has."""

    def join(self, step: int, skip: Tensor, x: Tensor) -> Tensor:
        return torch.cat([x, skip], dim=1)


def test_golden_transposed() -> None:
    check(
        lambda: UpsampledFirst(up="transposed", bias=False),
        "unet_buda32.json",
        adapt=torch.sigmoid,
        rename=buda,
    )


def test_golden_bilinear() -> None:
    check(lambda: UNet(up="bilinear"), "unet_nested32.json", rename=nested)


# The files for 9 classes differ in the head alone.
CASES = [("", 1), pytest.param("_synapse", 9, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("suffix", "classes"), CASES)
def test_golden_of_34_million(suffix: str, classes: int, whole: bool) -> None:
    check(lambda: UNet34M(num_classes=classes), f"unet_lee64{suffix}.json", rename=lee, whole=whole)


@pytest.mark.slow  # mateuszbuda's is the same with half the channels
@pytest.mark.parametrize(("suffix", "classes"), [("", 1), ("_synapse", 9)])
def test_golden_of_31_million(suffix: str, classes: int) -> None:
    check(
        lambda: UNet34M(num_classes=classes, up="transposed", bias=False),
        f"unet_milesial64{suffix}.json",
        rename=milesial,
    )


def test_the_u_net_of_the_tables_differs_by_biases_and_norms() -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in UNet().parameters())
    biases = 2 * (32 + 64 + 128 + 256 + 512) + 2 * (256 + 128 + 64 + 32)
    norms = 2 * (256 + 128 + 64 + 32)
    assert parameters == read("unet_buda32.json")["params"] + biases + norms == 7_766_945


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("classes", [1, 4])
def test_narrow_and_of_another_size(up: str, classes: int) -> None:
    trains(UNet(num_classes=classes, width=0.0625, up=up), 48, 32)
    trains(UNet34M(num_classes=classes, width=0.0625, up=up, in_channels=2), 32, 32)


def test_refusals() -> None:
    refuses(UNet, 32, 40, "^UNet takes sizes divisible by 16, not 32x40: ")
    with pytest.raises(InputError, match=r"^width 0\.01 leaves no channel "):
        UNet(width=0.01)
    with pytest.raises(InputError, match="up 'cubic' is none of transposed_norm, "):
        UNet(up="cubic")
