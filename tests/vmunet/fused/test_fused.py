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
from tests.helpers.fused_inputs import NAMES, errors, fused_inputs, output_and_gradients
from tests.helpers.paths import ROOT
from vmunet.errors import InputError
from vmunet.fused import conv_silu, gated_norm

OPERATORS = pytest.mark.parametrize("operator", NAMES)
NEEDS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
# Relative to the largest value; two-byte values are rounded once, the gradient of x twice.
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 2**-6, torch.float16: 2**-9}


def check(differences, dtype, case):
    for name, value in differences.items():
        parameter = name in ("weight", "bias")
        assert value < TOLERANCE[torch.float32 if parameter else dtype], (case, name, value)


# ---- The definitions ----------------------------------------------------------------------------


def vss_block_convolution(x, weight, bias):
    """As `vmunet.model.SS2D` writes it with nn.Conv2d and torch's SiLU."""
    d = x.shape[-1]
    x = F.silu(F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=d))
    return x.permute(0, 2, 3, 1).contiguous()


def vss_block_gate(y, z, weight, bias, eps):
    """As `vmunet.model.SS2D` writes it with nn.LayerNorm and torch's SiLU."""
    return F.layer_norm(y, y.shape[-1:], weight, bias, eps) * F.silu(z)


@OPERATORS
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 5, 24), (1, 1, 1, 1), (1, 8, 8, 192)])
def test_the_definition_has_the_bits_of_the_separate_operators(operator, autocast, shape):
    separate = {"conv_silu": vss_block_convolution, "gated_norm": vss_block_gate}[operator]
    dtype = torch.bfloat16 if autocast else torch.float32
    inputs, gradient = fused_inputs(operator, shape, dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = output_and_gradients(separate, operator, inputs, gradient)
        results = output_and_gradients(getattr(vmunet.fused, operator), operator, inputs, gradient)
    for name, value in expected.items():
        assert torch.equal(results[name], value), name
    assert results["output"].dtype == dtype
    assert results["output"].is_contiguous()


@OPERATORS
def test_the_definitions_gradients_are_its_derivatives(operator):
    inputs, _ = fused_inputs(operator, (2, 3, 2, 3), torch.float64)
    inputs = [tensor.double().requires_grad_() for tensor in inputs]
    eps = (1e-5,) if operator == "gated_norm" else ()
    assert torch.autograd.gradcheck(getattr(vmunet.fused, operator), (*inputs, *eps))


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
    ],
)
def test_inputs_that_do_not_fit_are_named(operator, which, change, message):
    inputs, _ = fused_inputs(operator.__name__, (2, 3, 4, 5), torch.float32)
    inputs[which] = change(inputs[which])
    eps = (1e-5,) if operator is gated_norm else ()
    with pytest.raises(InputError, match=f"{operator.__name__}: {message}"):
        operator(*inputs, *eps)


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
    for operator, shape, dtype, layout, differences in json.loads(run.stdout):
        check(differences, getattr(torch, dtype), (operator, shape, dtype, layout))


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
    from vmunet.fused import triton as compiled

    launches = []
    kernels = ("conv", "conv_backward"), ("norm", "norm_backward")
    for module, names in zip((conv_kernels, norm_kernels), kernels, strict=True):
        for name in names:
            monkeypatch.setattr(module, name, Recorder(getattr(module, name), launches))
    for d, dtype in ((192, torch.bfloat16), (1536, torch.float32)):
        for operator in NAMES:
            inputs, gradient = fused_inputs(operator, (1, 1, 1, d), dtype)
            output_and_gradients(getattr(compiled, operator), operator, inputs, gradient)

    assert len(launches) == 2 * 5
    largest = [launch for launch in launches if launch[0].__name__.endswith("_backward")]
    for capability, chosen in ((80, largest), (86, largest), (90, launches)):
        for launch in chosen:
            sass = disassemble(compile_launch(*launch, capability))
            case = launch[0].__name__, capability
            assert not re.findall(r"\b(LDL|STL)\b", sass), case  # what spilled registers need
            assert not re.findall(r"\b(LDG|STG)\.E\.U16\b", sass), case
            assert re.findall(r"\bSTG\.E\.(64|128)\b", sass), case


# ---- The kernels, on a GPU -----------------------------------------------------------------------

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SIZES = [(2, 64, 64, 192), (2, 32, 32, 384), (2, 16, 16, 768), (4, 8, 8, 1536), (1, 7, 9, 50)]


@pytest.mark.gpu
@ON_GPU
@OPERATORS
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SIZES)
def test_the_kernels_are_close_to_float64(operator, dtype, shape):
    inputs, gradient = fused_inputs(operator, shape, dtype, device="cuda")
    assert vmunet.fused._compiled(*inputs)
    check(errors(getattr(vmunet.fused, operator), operator, inputs, gradient), dtype, shape)


@pytest.mark.gpu
@ON_GPU
@OPERATORS
def test_torch_accepts_the_operators(operator):
    import_module("vmunet.fused.triton")  # it registers them
    inputs, _ = fused_inputs(operator, (2, 9, 10, 70), torch.float32, device="cuda")
    inputs = [tensor.requires_grad_() for tensor in inputs]
    eps = (1e-5,) if operator == "gated_norm" else ()
    torch.library.opcheck(getattr(torch.ops.vmunet, operator).default, (*inputs, *eps))
