"""Att-UNet against a public implementation, and at the edges."""

import pytest

from tests.helpers.edges import refuses, trains
from tests.helpers.rivals import check
from tests.helpers.unet_names import lee
from vmunet.errors import InputError
from vmunet.models.att_unet import AttUNet

GATE = {"of_skip": "W_x", "of_decoder": "W_g", "weight": "psi"}


def published(name: str) -> str:
    """gates.0.of_skip.1.bias is Att5.W_x.1.bias."""
    if not name.startswith("gates"):
        return lee(name)
    _, step, part, *rest = name.split(".")
    return ".".join([f"Att{5 - int(step)}", GATE[part], *rest])


# The file for 9 classes differs in the head alone.
@pytest.mark.parametrize(
    ("file", "classes"),
    [("attunet", 1), pytest.param("attunet_synapse", 9, marks=pytest.mark.slow)],
)
def test_golden(file: str, classes: int, whole: bool) -> None:
    check(lambda: AttUNet(num_classes=classes), f"{file}.json", rename=published, whole=whole)


@pytest.mark.parametrize("classes", [1, 4])
def test_narrow_and_of_another_size(classes: int) -> None:
    trains(AttUNet(num_classes=classes, width=0.0625), 32, 48)
    trains(AttUNet(num_classes=classes, width=0.125, in_channels=1), 32, 32)


def test_refusals() -> None:
    refuses(AttUNet, 8, 32, "^Att-UNet takes sizes divisible by 16, not 8x32: ")
    with pytest.raises(InputError, match=r"^width 0\.01 leaves no channel "):
        AttUNet(width=0.01)
