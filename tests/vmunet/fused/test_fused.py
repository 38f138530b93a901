"""The fused operators: their definitions, refused input, and their kernels."""

import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

import vmunet.fused
from tests.helpers.fused_inputs import (
    NAMES,
    TOLERANCE,
    arguments,
    differentiable,
    errors,
    fused_inputs,
    output_and_gradients,
    torch_operator,
)
from tests.helpers.paths import ROOT
from vmunet.errors import InputError
from vmunet.fused import add_layer_norm, conv_silu, gated_norm, layer_norm

OPERATORS = pytest.mark.parametrize("operator", NAMES)
NEEDS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def check(differences, case):
    for name, value in differences.items():
        assert value < 1, (case, name, value)


# ---- The definitions ----------------------------------------------------------------------------


def vss_block_convolution(x, weight, bias):
    """As `vmunet.model.SS2D` writes it with nn.Conv2d and torch's SiLU."""
    d = x.shape[-1]
    x = F.silu(F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=d))
    return x.permute(0, 2, 3, 1).contiguous()


def vss_block_gate(y, z, weight, bias, eps):
    """As `vmunet.model.SS2D` writes it with nn.LayerNorm and torch's SiLU."""
    return F.layer_norm(y, y.shape[-1:], weight, bias, eps) * F.silu(z)


def separate_norm(x, weight, bias, eps):
    """As nn.LayerNorm does it."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def block_end_and_norm(x, update, scale, weight, bias, eps):
    """As a block with drop path ends, and the next one begins."""
    total = x + update * scale.view(-1, 1, 1, 1)
    return total, separate_norm(total, weight, bias, eps)


SEPARATE = {
    "conv_silu": vss_block_convolution,
    "gated_norm": vss_block_gate,
    "layer_norm": separate_norm,
    "add_layer_norm": block_end_and_norm,
}


@OPERATORS
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 5, 24), (1, 1, 1, 1), (1, 8, 8, 192)])
def test_the_definition_has_the_bits_of_the_separate_operators(operator, autocast, shape):
    dtype = torch.bfloat16 if autocast else torch.float32
    inputs, gradients = fused_inputs(operator, shape, dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = output_and_gradients(SEPARATE[operator], operator, inputs, gradients)
        fused = getattr(vmunet.fused, operator)
        results = output_and_gradients(fused, operator, inputs, gradients)
    for name, value in expected.items():
        assert torch.equal(results[name], value), name
    assert results["output"].dtype == dtype
    assert results["output"].is_contiguous()


@pytest.mark.parametrize("operator", ["layer_norm", "add_layer_norm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_the_norm_and_nothing_else(operator, dtype):
    inputs, _ = fused_inputs(operator, (2, 3, 4, 24), torch.float32)
    *total, expected = torch.utils._pytree.tree_leaves(SEPARATE[operator](*inputs, 1e-5))
    with torch.autocast("cpu", dtype):
        outputs = getattr(vmunet.fused, operator)(*inputs, 1e-5)
        exact = getattr(vmunet.fused, operator)(*(tensor.double() for tensor in inputs), 1e-5)
    *sums, output = outputs if isinstance(outputs, tuple) else (outputs,)
    assert output.dtype == dtype
    assert torch.equal(output, expected.to(dtype))
    assert all(torch.equal(*pair) for pair in zip(sums, total, strict=True))
    assert {tensor.dtype for tensor in torch.utils._pytree.tree_leaves(exact)} == {torch.float64}


def test_a_sum_without_factors_is_the_sum():
    (x, update, scale, *others), _ = fused_inputs("add_layer_norm", (2, 3, 4, 5), torch.float32)
    plain = add_layer_norm(x, update, None, *others, 1e-5)
    ones = add_layer_norm(x, update, torch.ones_like(scale), *others, 1e-5)
    assert torch.equal(plain[0], x + update)
    assert all(torch.equal(*pair) for pair in zip(plain, ones, strict=True))


@OPERATORS
def test_the_definitions_gradients_are_its_derivatives(operator):
    inputs, _ = fused_inputs(operator, (2, 3, 2, 3), torch.float32)
    leaves, _ = differentiable(operator, [tensor.double() for tensor in inputs])
    assert torch.autograd.gradcheck(getattr(vmunet.fused, operator), arguments(operator, leaves))


def test_importing_the_operators_does_not_import_triton():
    code = "import sys, vmunet.fused; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("operator", "which", "change", "message"),
    [
        (conv_silu, 0, lambda x: x[0], r"x has shape \(3, 4, 5\), expected \(batch, height"),
        (conv_silu, 0, lambda x: x[:, :0], r"x has shape \(2, 0, 4, 5\).*none 0"),
        (conv_silu, 1, lambda w: w[:, 0], r"weight has shape \(5, 3, 3\), expected \(5, 1, 3, 3\)"),
        (conv_silu, 2, lambda b: b[:1], r"bias has shape \(1,\), expected \(5,\)"),
        (conv_silu, 0, lambda x: x.long(), "x is torch.int64, expected a floating-point type"),
        (gated_norm, 1, lambda z: z[:1], r"z has shape \(1, 3, 4, 5\), expected \(2, 3, 4, 5\)"),
        (gated_norm, 2, lambda w: w[:2], r"weight has shape \(2,\), expected \(5,\)"),
        (gated_norm, 3, lambda b: b.to("meta"), "bias is on meta but y is on cpu"),
        (layer_norm, 0, lambda x: x[0, 0], r"x has shape \(4, 5\), expected \(batch, height"),
        (layer_norm, 1, lambda w: w[None], r"weight has shape \(1, 5\), expected \(5,\)"),
        (add_layer_norm, 1, lambda u: u[1:], r"update has shape \(1, 3, 4, 5\), expected \(2, 3"),
        (add_layer_norm, 2, lambda s: s[1:], r"scale has shape \(1,\), expected \(2,\)"),
        (add_layer_norm, 2, lambda s: s.bool(), "scale is torch.bool, expected a floating-point"),
    ],
)
def test_inputs_that_do_not_fit_are_named(operator, which, change, message):
    inputs, _ = fused_inputs(operator.__name__, (2, 3, 4, 5), torch.float32)
    inputs[which] = change(inputs[which])
    with pytest.raises(InputError, match=f"{operator.__name__}: {message}"):
        operator(*arguments(operator.__name__, inputs))


# ---- The kernels, without a GPU ------------------------------------------------------------------


@NEEDS_TRITON
def test_the_interpreted_kernels_are_close_to_float64():
    run = subprocess.run(
        [sys.executable, "-m", "tests.helpers.interpreted_fused"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    for case, differences in json.loads(run.stdout):
        check(differences, case)


class Recorder:
    """Replaces a kernel and records the arguments of its launch."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


def compile_launch(kernel, args, options, capability):
    """The machine code for these arguments, as a launch would compile it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", int: "i32", float: "fp32"}
    constants = {name: value for name, value in options.items() if name in kernel.arg_names}
    signature = dict.fromkeys(kernel.arg_names, "constexpr")
    attributes = {}
    for at, (name, value) in enumerate(zip(kernel.arg_names, args, strict=False)):
        if value is None:
            constants[name] = None
            continue
        signature[name] = types[getattr(value, "dtype", type(value))]
        if isinstance(value, torch.Tensor):
            attributes[(at,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {name: value for name, value in options.items() if name not in constants}
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]


@NEEDS_TRITON
def test_the_kernels_compile_without_spills_and_with_wide_loads(monkeypatch):
    from tests.helpers.compiled_kernels import disassemble
    from vmunet.fused import conv_kernels, norm_kernels

    launches = []
    kernels = ("conv", "conv_backward"), ("norm", "norm_backward")
    for module, names in zip((conv_kernels, norm_kernels), kernels, strict=True):
        for name in names:
            monkeypatch.setattr(module, name, Recorder(getattr(module, name), launches))
    monkeypatch.setattr(vmunet.fused, "_compiled", lambda *tensors: True)
    for d, dtype in ((192, torch.bfloat16), (1536, torch.float32)):
        for operator in NAMES:
            inputs, gradients = fused_inputs(operator, (1, 1, 1, d), dtype)
            inputs = [t.float() if t.ndim == 1 else t for t in inputs]  # scalars may be 2 bytes
            output_and_gradients(getattr(vmunet.fused, operator), operator, inputs, gradients)

    assert len(launches) == 2 * (3 + 2 + 2 + 2)
    largest = [launch for launch in launches if launch[0].__name__.endswith("_backward")]
    for capability, chosen in ((80, largest), (86, largest), (90, launches)):
        for launch in chosen:
            cubin = compile_launch(*launch, capability)
            sass, usage = disassemble(cubin), disassemble(cubin, "-res-usage")
            case = launch[0].__name__, capability
            registers = int(re.findall(r"REG:(\d+)", usage)[0])
            assert registers <= 168, case  # of 65,536: twelve warps at a time
            assert not re.findall(r"\b(LDL|STL)\b", sass), case  # what spilled registers need
            assert not re.findall(r"\b(LDG|STG)\.E\.U16\b", sass), case
            assert re.findall(r"\bSTG\.E\.(64|128)\b", sass), case


# ---- The kernels, on a GPU -----------------------------------------------------------------------

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SIZES = [
    (2, 128, 128, 24),
    (2, 64, 64, 192),
    (2, 32, 32, 384),
    (2, 16, 16, 768),
    (4, 8, 8, 1536),
    (1, 7, 9, 50),
]


@pytest.mark.gpu
@ON_GPU
@OPERATORS
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SIZES)
def test_the_kernels_are_close_to_float64(operator, dtype, shape):
    inputs, gradients = fused_inputs(operator, shape, dtype, device="cuda")
    assert vmunet.fused._compiled(*inputs)
    check(errors(operator, inputs, gradients), (shape, dtype))


@pytest.mark.gpu
@ON_GPU
@OPERATORS
def test_torch_accepts_the_operators(operator):
    import_module("vmunet.fused.triton")  # it registers them
    inputs, _ = fused_inputs(operator, (2, 9, 10, 70), torch.float32, device="cuda")
    torch.library.opcheck(*torch_operator(operator, differentiable(operator, inputs)[0]))
