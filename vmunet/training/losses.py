"""The two training losses: BCE + Dice for one class (ISIC), CE + Dice for several (Synapse).

They are equations 5 and 6 of the paper (section III-D), as the published code computes them. Both
weights are 1 unless others are given. The losses are computed in float32 (float64 if the logits
are), also inside an autocast region: half precision cannot sum a batch of pixels, and there torch
refuses binary cross-entropy on probabilities.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vmunet.errors import InputError

BINARY_SMOOTH = 1.0
MULTICLASS_SMOOTH = 1e-5


Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, targets) -> a scalar


Weights = tuple[float, float]  # factors of the cross-entropy and of Dice
EQUAL: Weights = (1.0, 1.0)


def training_loss(
    classes: int, loss_input: Literal["probabilities", "logits"], weights: Weights = EQUAL
) -> Loss:
    """The loss of a model with `classes` outputs: `bce_dice` for one, `ce_dice` for more."""
    if classes == 1:
        return partial(bce_dice, loss_input=loss_input, weights=weights)
    return partial(ce_dice, weights=weights)


def bce_dice(
    logits: Tensor,
    target: Tensor,
    loss_input: Literal["probabilities", "logits"],
    weights: Weights = EQUAL,
) -> Tensor:
    """Binary cross-entropy plus Dice, the ISIC loss.

    Args:
        logits: (batch, 1, height, width), any real numbers, any floating type.
        target: (batch, 1, height, width), 0..1; soft targets are allowed.
        loss_input: `probabilities` takes the cross-entropy after a sigmoid, as the published code
            does: a logit beyond about +-17 rounds to probability 0 or 1, whose logarithm is
            clamped at -100 and whose gradient is 0. `logits` gives the same value inside that
            range and stays exact, with a gradient, outside it.
        weights: factors of the two terms.

    Returns:
        A scalar: mean cross-entropy over all pixels + `binary_dice`, each times its weight.

    Raises:
        InputError: the shapes differ or are not (batch, 1, height, width), or `loss_input` is
            another word.
    """
    _check_binary(logits, target)
    if loss_input not in ("probabilities", "logits"):
        raise InputError(f"loss_input is {loss_input!r}; expected 'probabilities' or 'logits'")
    with torch.autocast(logits.device.type, enabled=False):
        logits = _full_precision(logits)
        if loss_input == "probabilities":
            return bce_dice_of_probabilities(torch.sigmoid(logits), target, weights)
        target = target.to(logits.dtype)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
        return weights[0] * cross_entropy + weights[1] * binary_dice(torch.sigmoid(logits), target)


def bce_dice_of_probabilities(
    probabilities: Tensor, target: Tensor, weights: Weights = EQUAL
) -> Tensor:
    """`bce_dice` after the sigmoid; both tensors are (batch, 1, height, width), 0..1.

    The cross-entropy is torch's nn.BCELoss, whose logarithms are clamped at -100.
    """
    _check_binary(probabilities, target)
    with torch.autocast(probabilities.device.type, enabled=False):
        probabilities = _full_precision(probabilities)
        target = target.to(probabilities.dtype)
        cross_entropy = F.binary_cross_entropy(probabilities, target)
        return weights[0] * cross_entropy + weights[1] * binary_dice(probabilities, target)


def binary_dice(probabilities: Tensor, target: Tensor) -> Tensor:
    """Dice loss over each flattened sample, smooth 1, averaged over the batch.

    Args:
        probabilities, target: (batch, 1, height, width), 0..1.

    Returns:
        A scalar, mean over the batch of 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1). An empty
        target with an empty prediction costs 0.
    """
    p = probabilities.flatten(1)  # (batch, pixels)
    t = target.flatten(1)  # (batch, pixels)
    overlap = 2.0 * (p * t).sum(1) + BINARY_SMOOTH
    return (1.0 - overlap / (p.sum(1) + t.sum(1) + BINARY_SMOOTH)).mean()


def ce_dice(logits: Tensor, target: Tensor, weights: Weights = EQUAL) -> Tensor:
    """Cross-entropy plus Dice over all classes, background included: the Synapse loss.

    Dice is pooled over the batch for each class c: 1 - (2 sum(p_c t_c) + s) / (sum(p_c^2) +
    sum(t_c^2) + s) with p the softmax, t the one-hot target and s = 1e-5; then the mean over the
    classes.

    Args:
        logits: (batch, classes, height, width) or (batch, classes, depth, height, width), any
            floating type.
        target: the same without the classes: integer class indices 0..classes-1.
        weights: factors of the two terms.

    Returns:
        A scalar: mean cross-entropy over all pixels or voxels + Dice, each times its weight.

    Raises:
        InputError: the shapes do not match or the target does not hold integers.
    """
    if logits.ndim not in (4, 5) or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise InputError(
            f"ce_dice: logits are {tuple(logits.shape)} and the target {tuple(target.shape)}; "
            "expected (batch, classes, height, width) and (batch, height, width), for volumes with "
            "the depth before the height"
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise InputError(f"ce_dice: the target is {target.dtype}; expected integer class indices")
    with torch.autocast(logits.device.type, enabled=False):
        logits = _full_precision(logits)
        target = target.long()
        axes = tuple(range(2, logits.ndim))
        classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, *[1] * len(axes))
        one_hot = (target.unsqueeze(1) == classes).to(logits.dtype)  # of the logits' shape
        log_p = F.log_softmax(logits, dim=1)
        p = log_p.exp()
        over_batch = (0, *axes)
        overlap = 2.0 * (p * one_hot).sum(over_batch) + MULTICLASS_SMOOTH  # (classes,)
        size = (p * p).sum(over_batch) + one_hot.sum(over_batch) + MULTICLASS_SMOOTH
        dice = (1.0 - overlap / size).mean()
        return weights[0] * F.nll_loss(log_p, target) + weights[1] * dice


def _full_precision(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_binary(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 4 or prediction.shape[1] != 1 or prediction.shape != target.shape:
        raise InputError(
            f"bce_dice: the prediction is {tuple(prediction.shape)} and the target "
            f"{tuple(target.shape)}; expected (batch, 1, height, width) for both"
        )
