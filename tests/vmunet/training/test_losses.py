import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.paths import ROOT
from vmunet.errors import InputError
from vmunet.training.losses import (
    bce_dice,
    bce_dice_of_probabilities,
    binary_dice,
    ce_dice,
    training_loss,
)

GOLDEN = ROOT / "tests/golden"
EXPECTED = json.loads((GOLDEN / "losses_metrics.json").read_text())
FORMS = ("probabilities", "logits")


@pytest.fixture(scope="module")
def inputs():
    return load_file(GOLDEN / "losses_metrics_inputs.safetensors")


def soft_batch(seed=0, scale=3.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 1, 16, 24, generator=generator, dtype=dtype)
    target = torch.rand(3, 1, 16, 24, generator=generator, dtype=dtype)
    return logits, target


def test_golden_bce_dice(inputs):
    probabilities, target = inputs["binary_prob"], inputs["binary_target"]
    loss = bce_dice_of_probabilities(probabilities, target)
    assert loss.item() == pytest.approx(EXPECTED["bce_dice"], rel=1e-6)
    for form in FORMS:
        loss = bce_dice(torch.logit(probabilities.double()), target, form)
        assert loss.item() == pytest.approx(EXPECTED["bce_dice"], rel=1e-6)


def test_golden_ce_dice(inputs):
    loss = ce_dice(inputs["multi_logits"], inputs["multi_target"])
    assert loss.item() == pytest.approx(EXPECTED["ce_dice"], rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_cross_entropy_is_torch_own(form):
    logits, target = soft_batch()
    if form == "probabilities":
        expected = nn.BCELoss()(torch.sigmoid(logits), target)
    else:
        expected = nn.BCEWithLogitsLoss()(logits, target)
    loss = bce_dice(logits, target, form) - binary_dice(torch.sigmoid(logits), target)
    torch.testing.assert_close(loss, expected)


def test_both_forms_have_one_value_and_gradient_where_nothing_saturates():
    logits, target = soft_batch(dtype=torch.float64)
    gradients = []
    for form in FORMS:
        leaf = logits.clone().requires_grad_()
        loss = bce_dice(leaf, target, form)
        torch.testing.assert_close(loss, bce_dice(logits, target, "logits"))
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    leaf = logits[:, :, :3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: bce_dice(x, target[:, :, :3, :3], "logits"), leaf.contiguous()
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extreme", [20.0, 200.0, 1e4, 1e30])
def test_value_and_gradient_are_finite_at_saturation(form, extreme):
    logits = torch.tensor([extreme, -extreme, extreme, -extreme]).reshape(1, 1, 2, 2)
    logits.requires_grad_()
    target = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 2, 2)  # two right, two wrong
    loss = bce_dice(logits, target, form)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    wrong = logits.grad.flatten()[2:]
    if form == "logits":  # the wrong pixels still learn
        assert wrong[0] > 0 > wrong[1]


def test_probabilities_saturate_at_a_hundred_and_logits_do_not():
    logits = torch.full((1, 1, 4, 4), 1000.0)
    target = torch.zeros_like(logits)
    dice = binary_dice(torch.sigmoid(logits), target)
    assert bce_dice(logits, target, "probabilities") - dice == pytest.approx(100.0)
    assert bce_dice(logits, target, "logits") - dice == pytest.approx(1000.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(form, dtype):
    logits, target = soft_batch()
    half = logits.to(dtype)
    expected = bce_dice(half.float(), target, form)
    with torch.autocast("cpu", dtype=dtype):
        loss = bce_dice(half, target, form)
    assert loss.dtype == torch.float32
    assert loss == expected


def test_ce_dice_under_autocast_and_by_hand(inputs):
    logits, target = inputs["multi_logits"].bfloat16(), inputs["multi_target"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ce_dice(logits, target)
    assert loss.dtype == torch.float32
    wide = logits.double()
    p = wide.softmax(1)
    terms = []
    for c in range(9):
        t = (target == c).double()
        terms.append(1 - (2 * (p[:, c] * t).sum() + 1e-5) / ((p[:, c] ** 2 + t).sum() + 1e-5))
    expected = nn.CrossEntropyLoss()(wide, target) + torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_binary_loss_is_the_batch_mean_of_its_samples(form):
    logits, target = soft_batch()
    each = [bce_dice(logits[i : i + 1], target[i : i + 1], form) for i in range(3)]
    torch.testing.assert_close(bce_dice(logits, target, form), torch.stack(each).mean())


def test_empty_target_predicted_empty_costs_nothing():
    logits = torch.full((2, 1, 8, 8), -200.0)
    assert bce_dice(logits, torch.zeros_like(logits), "logits").item() == 0.0


@pytest.mark.parametrize("form", ["probabilities", "logits"])
def test_weights_multiply_the_two_terms(form):
    generator = torch.Generator().manual_seed(0)
    for classes in (1, 3):
        logits = torch.randn(2, classes, 8, 8, generator=generator)
        target = torch.randint(max(2, classes), (2, 8, 8), generator=generator)
        target = target[:, None].float() if classes == 1 else target
        terms = [training_loss(classes, form, w)(logits, target) for w in ((1.0, 0.0), (0.0, 1.0))]
        both = training_loss(classes, form, (0.5, 1.5))(logits, target)
        assert torch.allclose(both, 0.5 * terms[0] + 1.5 * terms[1])
        plain, equal = training_loss(classes, form), training_loss(classes, form, (1.0, 1.0))
        assert torch.equal(plain(logits, target), equal(logits, target))


def test_a_volume_costs_what_its_slices_cost_as_a_batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 8, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(4, (2, 3, 8, 6), generator=generator)
    slices = logits.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(ce_dice(logits, target), ce_dice(slices, target.flatten(0, 1)))
    leaf = logits.requires_grad_()
    (gradient,) = torch.autograd.grad(ce_dice(leaf, target, (0.5, 2.0)), leaf)
    (expected,) = torch.autograd.grad(
        ce_dice(leaf.transpose(1, 2).flatten(0, 1), target.flatten(0, 1), (0.5, 2.0)), leaf
    )
    torch.testing.assert_close(gradient, expected)
    with pytest.raises(InputError, match=r"\(2, 8, 6\)"):
        ce_dice(logits, target[:, 0])


def test_wrong_input_is_named():
    logits = torch.zeros(2, 1, 8, 8)
    with pytest.raises(InputError, match=r"\(2, 8, 8\)"):
        bce_dice(logits, torch.zeros(2, 8, 8), "logits")
    with pytest.raises(InputError, match=r"\(2, 9, 8, 8\)"):
        bce_dice(torch.zeros(2, 9, 8, 8), torch.zeros(2, 9, 8, 8), "logits")
    with pytest.raises(InputError, match="loss_input"):
        bce_dice(logits, logits, "odds")
    with pytest.raises(InputError, match=r"\(2, 1, 8, 8\)"):
        ce_dice(torch.zeros(2, 9, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.int64))
    with pytest.raises(InputError, match="float32"):
        ce_dice(torch.zeros(2, 9, 8, 8), torch.zeros(2, 8, 8))
