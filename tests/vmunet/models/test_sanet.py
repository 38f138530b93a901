"""SANet against the authors' values, and at the edges."""

import pytest
import torch

from tests.helpers.edges import refuses, trains
from tests.helpers.rivals import check
from vmunet.models.parts.resize import resize
from vmunet.models.sanet import SANet


def test_golden() -> None:
    check(SANet, "sanet.json", run=lambda model, images: model.coarse(images))


def test_logits_are_the_coarse_ones_enlarged() -> None:
    model = SANet(width=0.0625).eval()
    images = torch.randn(1, 3, 96, 64)
    coarse = model.coarse(images)
    assert coarse.shape == (1, 1, 12, 8)
    assert torch.equal(model(images), resize(coarse, (96, 64)))


@pytest.mark.parametrize("classes", [1, 4])
def test_narrow_and_of_another_size(classes: int) -> None:
    trains(SANet(num_classes=classes, width=0.0625), 64, 32)
    trains(SANet(num_classes=classes, width=0.125, in_channels=4), 32, 32)


def test_refusals() -> None:
    refuses(SANet, 64, 48, "^SANet takes sizes divisible by 32, not 64x48: ")
