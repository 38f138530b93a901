"""The model against the authors' own values, and its contract at the edges."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.paths import ROOT
from vmunet import InputError, VMUNet
from vmunet import scan as scan_module

GOLDEN = ROOT / "tests/golden"
ARCHITECTURE = json.loads((GOLDEN / "architecture.json").read_text())
BACKENDS = ("reference", "cpu", pytest.param("triton", marks=pytest.mark.gpu))


def golden_model() -> tuple[VMUNet, dict[str, torch.Tensor]]:
    model = VMUNet(num_classes=9, dims=(16, 32, 64, 128), drop_path_rate=0.0)
    model.load_state_dict(load_file(GOLDEN / "small_weights.safetensors"))
    return model, load_file(GOLDEN / "small_io.safetensors")


def relative(value: torch.Tensor, truth: torch.Tensor) -> float:
    return ((value - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_logits_and_gradients(backend: str) -> None:
    model, golden = golden_model()
    if backend == "triton":
        model, golden = model.cuda(), {name: tensor.cuda() for name, tensor in golden.items()}
    images = golden["input"].requires_grad_()
    exact = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )  # which convolutions use by default
    with scan_module.backend(backend), exact:
        logits = model(images)
        (logits * golden["loss_weight"]).mean().backward()
    assert relative(logits, golden["logits"]) < 1e-4
    assert images.grad is not None
    assert relative(images.grad, golden["grad_input"]) < 1e-4
    parameters = dict(model.named_parameters())
    names = [name.removeprefix("grad.") for name in golden if name.startswith("grad.")]
    assert len(names) == 9
    for name in names:
        gradient = parameters[name].grad
        assert gradient is not None, name
        assert relative(gradient, golden[f"grad.{name}"]) < 1e-4, name


def test_state_dict_names_and_shapes() -> None:
    with torch.device("meta"):
        shapes = {name: list(t.shape) for name, t in VMUNet().state_dict().items()}
    assert shapes == ARCHITECTURE["state_dict_shapes"]
    assert list(shapes) == list(ARCHITECTURE["state_dict_shapes"])


def test_every_parameter_gets_a_gradient() -> None:
    model, golden = golden_model()
    model(golden["input"]).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_drop_path_rises_over_the_encoder_and_falls_over_the_decoder() -> None:
    with torch.device("meta"):
        model = VMUNet(drop_path_rate=0.2)
    encoder = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    decoder = [block.drop_path.rate for stage in model.layers_up for block in stage.blocks]
    assert encoder == pytest.approx([0.2 * i / 7 for i in range(8)])
    assert decoder == pytest.approx([0.2 * (6 - i) / 6 for i in range(7)])


def test_drop_path_keeps_the_mean_and_is_off_in_eval() -> None:
    from vmunet.model import DropPath

    torch.manual_seed(0)
    drop = DropPath(0.3)
    x = torch.ones(20_000, 1)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(x), x)


def test_grayscale_is_repeated() -> None:
    model, golden = golden_model()
    gray = golden["input"][:, :1]
    with torch.no_grad():
        assert torch.equal(model(gray), model(gray.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("shape", [(1, 3, 48, 64), (1, 3, 64, 33), (1, 2, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape: tuple[int, ...]) -> None:
    model = VMUNet(dims=(8, 16, 32, 64))
    with pytest.raises(InputError, match=r"VM-UNet"):
        model(torch.zeros(shape))


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": (2, 2, 2)},
        {"depths": (2, 0, 2, 2)},
        {"dims": (8, 16, 32, 65)},
        {"dims": (6, 12, 24, 48)},
        {"drop_path_rate": 1.0},
    ],
)
def test_wrong_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(InputError, match="VMUNet"):
        VMUNet(**arguments)


def test_each_tensor_starts_in_its_distribution() -> None:
    """Uniform: range and standard deviation; truncated normal: standard deviation; constants."""
    torch.manual_seed(0)
    model = VMUNet()
    parameters = dict(model.named_parameters())
    for name, p in parameters.items():
        p = p.detach()
        d = p.shape[-1]
        if name.endswith("A_logs"):
            assert torch.equal(p, torch.log(torch.arange(1.0, 17.0)).expand_as(p)), name
        elif name.endswith(("Ds", "norm.weight", "ln_1.weight")):
            assert torch.equal(p, torch.ones_like(p)), name
        elif name.endswith(("norm.bias", "ln_1.bias")):
            assert torch.equal(p, torch.zeros_like(p)), name
        elif name.endswith("dt_projs_bias"):
            step = nn.functional.softplus(p.double())
            assert step.min() >= 1e-3 * (1 - 1e-3), name
            assert step.max() <= 1e-1 * (1 + 1e-3), name
            middle, spread = step.log().mean().item(), step.log().std().item()
            assert middle == pytest.approx(math.log(1e-2), abs=0.15), name
            assert spread == pytest.approx(math.log(100) / 12**0.5, rel=0.05), name
        elif name.endswith(("x_proj_weight", "dt_projs_weight")):
            bound = d**-0.5
            assert p.abs().max() <= bound, name
            assert p.std().item() == pytest.approx(bound / 3**0.5, rel=0.06), name
        elif "conv" in name or "patch_embed.proj" in name:
            weight = parameters[name.replace("bias", "weight")]
            bound = weight[0].numel() ** -0.5
            assert p.abs().max() <= bound, name
            if p.numel() >= 192:
                assert p.std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name
        else:  # in_proj, out_proj, reduction, expand
            assert p.std().item() == pytest.approx(0.02, rel=0.05), name
    deviations = [
        parameters[f"layers.{i}.blocks.0.self_attention.x_proj_weight"].std().item()
        for i in range(4)
    ]
    assert deviations == pytest.approx([0.042, 0.030, 0.021, 0.015], abs=6e-4)
