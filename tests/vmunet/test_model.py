"""The model against the authors' own values, and its contract at the edges."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.paths import ROOT
from vmunet import InputError, VMUNet
from vmunet import model as model_module
from vmunet import scan as scan_module
from vmunet.model import VSSBlock, chain

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


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_chain_of_blocks_is_the_blocks_one_after_the_other(rate: float) -> None:
    """The same bits as `x + DropPath(SS2D(LayerNorm(x)))` of PyTorch's own operators."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(VSSBlock(8, 4, rate) for _ in range(3))
    x = torch.randn(3, 4, 5, 8, requires_grad=True)
    inputs = [x, *blocks.parameters()]
    torch.manual_seed(1)
    y = chain(blocks, x)
    torch.manual_seed(1)
    plain = x
    for block in blocks:
        norm = block.ln_1
        normed = nn.functional.layer_norm(plain, (8,), norm.weight, norm.bias, norm.eps)
        plain = plain + block.drop_path(block.self_attention(normed))
    assert torch.equal(y, plain)
    gy = torch.randn_like(y)
    pairs = zip(*(torch.autograd.grad(value, inputs, gy) for value in (y, plain)), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def calls_of_norms(monkeypatch: pytest.MonkeyPatch, device: str) -> dict[str, list]:
    """The arguments and results of the fused norms in a training step's forward pass in bf16."""
    calls: dict[str, list] = {"layer_norm": [], "add_layer_norm": []}
    for name, seen in calls.items():
        function = getattr(model_module, name)

        def record(*inputs, seen=seen, function=function):
            seen.append((inputs, function(*inputs)))
            return seen[-1][1]

        monkeypatch.setattr(model_module, name, record)
    model = VMUNet(dims=(8, 16, 32, 64), drop_path_rate=0.5).to(device)
    with torch.autocast(device, torch.bfloat16):
        model(255 * torch.rand(2, 3, 64, 32, device=device))
    return calls


def test_every_norm_before_a_product_is_fused_and_in_bf16(monkeypatch) -> None:
    calls = calls_of_norms(monkeypatch, "cpu")
    alone = [output for _, output in calls["layer_norm"]]
    # A block's norm is alone only at the start of a stage; the last one is the final expansion's.
    blocks, mergings, expandings = 4 + 4, 3, 3 + 1
    assert len(alone) == blocks + mergings + expandings
    assert alone[-1].shape == (2, 64, 32, 2)
    assert len(calls["add_layer_norm"]) == 8 + 7 - blocks
    normed = [outputs[1] for _, outputs in calls["add_layer_norm"]]
    assert {output.dtype for output in (*alone, *normed)} == {torch.bfloat16}
    factors = [inputs[2] for inputs, _ in calls["add_layer_norm"]]
    # The first block's rate is 0; all others that end inside a stage may drop.
    assert [scale is None for scale in factors] == [True] + [False] * 6
    kinds = [type(m) for m in VMUNet().modules() if isinstance(m, nn.LayerNorm)]
    assert kinds.count(nn.LayerNorm) == 1 + 15  # the patch embedding's, and SS2D's, which is gated


@pytest.mark.gpu
def test_gpu_norms_in_bf16_take_the_kernels(monkeypatch) -> None:
    """Autocast mixes float32 and bf16 in the residual stream; the kernels take both."""
    calls = calls_of_norms(monkeypatch, "cuda")
    (x, update, *_), (total, normed) = calls["add_layer_norm"][0]
    types = [tensor.dtype for tensor in (x, update, total, normed)]
    assert types == [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]
    assert normed.grad_fn.name().startswith("GeneratedBackwardFor_vmunet_norm")
    for seen in calls.values():
        for inputs, outputs in seen:
            output = outputs[1] if isinstance(outputs, tuple) else outputs
            total = outputs[0] if isinstance(outputs, tuple) else inputs[0]
            *_, weight, bias, eps = inputs
            exact = nn.functional.layer_norm(
                total.double(), total.shape[-1:], weight.double(), bias.double(), eps
            )
            assert output.dtype == torch.bfloat16
            assert relative(output.double(), exact) < 2**-7


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
