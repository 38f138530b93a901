"""He et al.'s initial values, which keep the variance through layers with ReLU."""

from typing import Literal

from torch import Tensor, nn


def kaiming_normal(weight: Tensor, mode: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """`nn.init.kaiming_normal_`, unless there are no values: on "meta" it would cost 3 s."""
    if not weight.is_meta:
        nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")
