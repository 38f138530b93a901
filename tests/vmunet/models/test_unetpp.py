"""UNet++ against a public implementation, with and without deep supervision, and at the edges."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.edges import refuses, trains
from tests.helpers.rivals import check
from vmunet.models.unetpp import UNetPlusPlus


def every_head(model: Any, images: Tensor) -> dict[str, Tensor]:
    return {name.replace("final", "out"): y for name, y in model.outputs(images).items()}


def test_golden_with_deep_supervision() -> None:
    check(UNetPlusPlus, "unetpp_ds.json", run=every_head)


def test_golden_with_one_head() -> None:
    check(
        lambda: UNetPlusPlus(deep_supervision=False),
        "unetpp.json",
        run=lambda model, images: model.outputs(images)["final"],
    )


def test_heads() -> None:
    model = UNetPlusPlus(width=0.0625)
    assert model.heads == {f"final{j}": 0.25 for j in (1, 2, 3, 4)}
    images = torch.randn(1, 1, 32, 32)  # one channel is repeated
    assert list(model.train()(images)) == list(model.heads)
    assert torch.equal(model.eval()(images), model.outputs(images)["final4"])
    single = UNetPlusPlus(width=0.0625, deep_supervision=False)
    assert single.heads == {"final": 1.0}
    assert single.eval()(images).shape == images.shape


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_narrow_and_of_another_size(classes: int, deep_supervision: bool) -> None:
    arguments = {"num_classes": classes, "deep_supervision": deep_supervision}
    trains(UNetPlusPlus(**arguments, width=0.0625), 48, 32)


def test_refusals() -> None:
    refuses(UNetPlusPlus, 24, 32, r"^UNet\+\+ takes sizes divisible by 16, not 24x32: ")
