"""The backward pass in two scans: right in the interpreter, small when compiled, right on a GPU.

Its gradient of A is allowed 1e-5 of the largest entry, see `vmunet.scan.triton_two_scans`.
"""

import json
import subprocess
import sys

import pytest
import torch

from tests.helpers.paths import ROOT
from tests.helpers.scan_inputs import NAMES, error, output_and_gradients, scan_inputs
from vmunet.scan import reference, triton, triton_tiles
from vmunet.scan.triton_tiles import BACKWARD, FORWARD, SPAN, TWO_SCANS, TwoScans

pytest.importorskip("triton")
MAPS = {"x", "dt", "gy", "gdt"}  # may be in half precision
SUMS = {"A", "B", "C", "skip", "bias", "saved", "pulled", "spans", "ends", "totals", "gx"}
SUMS |= {"gA", "gB", "gC", "gskip", "gbias"}


# ---- In the interpreter -------------------------------------------------------------------------


def in_interpreter(*options):
    command = [sys.executable, "-m", "tests.helpers.interpreted_two_scans", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted():
    return in_interpreter()


def check_gradients(results, cases):
    assert len(results["cases"]) == cases
    for case, errors in results["cases"].items():
        assert set(errors) == {"y", *NAMES}
        for name, value in errors.items():
            assert value < (1e-5 if name == "A" else 2e-6), (case, name)
    assert results["strong decay"] < 1e-5  # of dA


def test_every_gradient_is_float64s():
    check_gradients(in_interpreter("--few"), cases=3)


@pytest.mark.slow
def test_every_gradient_is_float64s_in_more_cases(interpreted):
    check_gradients(interpreted, cases=8)


@pytest.mark.slow
def test_bits_and_layouts(interpreted):
    assert interpreted["same bits"] is True
    assert interpreted["layouts"] == 0


@pytest.mark.slow
def test_half_precision_maps_are_rounded_once(interpreted):
    for name, value in interpreted["half"].items():
        assert value < (1e-6 if name in ("A", "D", "dt_bias") else 2**-7), name


@pytest.mark.slow
def test_what_it_launches(interpreted):
    kernels = ["ahead_kernel", "back_kernel", "finish_kernel"]
    whole, cut = interpreted["launches"]
    assert whole["backward"] == kernels
    assert cut["backward"] == ["_to_copy", "_to_copy", *kernels]  # B and C in float32


# ---- Compiled -----------------------------------------------------------------------------------


def compiled(capability, kernel, tile, half=False, **constants):
    """What a kernel needs, and its instructions for each exponential of the loop over steps."""
    from tests.helpers.compiled_kernels import compile_for
    from vmunet.scan import triton_two_scans

    kernel = getattr(triton_two_scans, kernel)
    constants = {"SUMMARY": False, "EVEN": True, "SPAN": SPAN, "N": 16} | constants
    constants |= {"U": tile.U, "CH": tile.CH, "LD": tile.LD}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {
        name: "*bf16" if half and name in MAPS else "*fp32"
        for name in MAPS | SUMS
        if name in kernel.arg_names
    }
    result = compile_for(capability, kernel, types, constants, maxnreg=tile.registers)
    exponentials = tile.U * tile.CH * 16 * tile.LD // 32  # of a lane and U steps
    (loop, *_) = (loop for loop in result.loops if loop["EX2"] >= exponentials)
    return result, {op: count / exponentials for op, count in loop.items()}


FIRST = next(iter(TWO_SCANS.values()))


@pytest.mark.parametrize("kernel", ["ahead_kernel", "back_kernel"])
@pytest.mark.parametrize("tile", TWO_SCANS.values(), ids=TWO_SCANS)
def test_what_a_step_costs_beside_its_exponential(kernel, tile):
    result, loop = compiled(90, kernel, tile)
    assert result.registers <= tile.registers
    assert result.shared <= 2048
    assert loop.get("LDL", 0) + loop.get("STL", 0) <= 0.1
    assert sum(loop.values()) < (15 if kernel == "ahead_kernel" else 17.5)
    assert loop["EX2"] < 1.1  # no state is computed twice
    assert loop.get("SHFL", 0) <= 0.2


@pytest.mark.parametrize("capability", [80, 86])
@pytest.mark.parametrize(("kernel", "most"), [("ahead_kernel", 18.0), ("back_kernel", 21.0)])
def test_it_compiles_for_older_gpus_and_uneven_shapes(capability, kernel, most):
    result, loop = compiled(capability, kernel, FIRST, half=True, EVEN=False)
    assert result.registers <= FIRST.registers
    assert sum(loop.values()) < most


def test_what_a_summary_adds():
    _, plain = compiled(90, "ahead_kernel", FIRST)
    _, cut = compiled(90, "ahead_kernel", FIRST, SUMMARY=True)
    assert sum(cut.values()) - sum(plain.values()) < 4.5


@pytest.mark.parametrize("kernel", ["merge_kernel", "finish_kernel"])
def test_the_sums_compile(kernel):
    """Their branches share names, which the interpreter does not check."""
    from tests.helpers.compiled_kernels import compile_for
    from vmunet.scan import triton_sums

    kernel = getattr(triton_sums, kernel)
    types = {name: "*fp32" for name in kernel.arg_names if name.endswith("parts")}
    types |= {name: "*bf16" for name in ("whole", "gx", "gB", "gC") if name in kernel.arg_names}
    types |= {name: "*fp32" for name in ("gD", "gbias", "gA") if name in kernel.arg_names}
    constants = {"BLOCK": triton_sums.BLOCK}
    result = compile_for(90, kernel, types, constants, warps=4)
    assert result.spills == 0
    assert result.registers <= 64


# ---- Choosing it --------------------------------------------------------------------------------


def test_the_variable_makes_it_a_candidate(monkeypatch):
    monkeypatch.delenv("VMUNET_TWO_SCANS", raising=False)
    assert triton_tiles.backward_tiles() == BACKWARD
    monkeypatch.setenv("VMUNET_TWO_SCANS", "1")
    assert triton_tiles.backward_tiles() == {**BACKWARD, **TWO_SCANS}


@pytest.mark.parametrize(
    ("height", "steps_ahead"), [(2, 1), (3, 1), (4, 2), (7, 2), (8, 4), (64, 4)]
)
def test_a_walk_that_reads_on_stays_inside(height, steps_ahead):
    tile = TwoScans(U=4, CH=1, LD=32).fit(height)
    assert steps_ahead == tile.U
    assert height >= 2 * tile.U


def test_what_it_takes():
    assert TwoScans.takes(2, 16)
    assert TwoScans.takes(64, 3)
    assert not TwoScans.takes(1, 16)
    assert not TwoScans.takes(64, 17)


def test_tiles_divide_a_span():
    for tile in TWO_SCANS.values():
        assert SPAN % tile.U == 0


# ---- On a GPU -----------------------------------------------------------------------------------


def on_gpu(*shape, dtype=torch.float32):
    x, dt, A, B, C, D, dt_bias = (tensor.cuda() for tensor in scan_inputs(*shape))
    return [x.to(dtype), dt.to(dtype), A, B.to(dtype), C.to(dtype), D, dt_bias]


@pytest.mark.gpu
@pytest.mark.parametrize("tile", TWO_SCANS.values(), ids=TWO_SCANS)
@pytest.mark.parametrize("segments", [1, 2, 5])
@pytest.mark.parametrize(
    "shape", [(2, 64, 64, 96), (1, 40, 36, 70), (2, 7, 7, 64), (1, 9, 5, 33, 3)]
)
def test_gpu_gradients(tile, segments, shape):
    inputs = on_gpu(*shape)
    gy = torch.randn_like(inputs[0])
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    _, saved = triton.forward(*inputs, True, next(iter(FORWARD.values())), segments)
    gradients = triton.backward(gy, *inputs, saved, tile, segments)
    again = triton.backward(gy, *inputs, saved, tile, segments)
    for name, value, same in zip(NAMES, gradients, again, strict=True):
        assert error(value, truth[name]) < 1e-5, name
        assert torch.equal(value, same), name


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gpu_half_precision(dtype):
    inputs = on_gpu(2, 32, 32, 96, dtype=dtype)
    gy = torch.randn_like(inputs[0])
    _, saved = triton.forward(*inputs, True)
    truth = triton.backward(gy, *inputs, saved, next(iter(BACKWARD.values())))
    unit = torch.finfo(dtype).eps
    for tile in TWO_SCANS.values():
        gradients = triton.backward(gy, *inputs, saved, tile)
        for name, value, expected in zip(NAMES, gradients, truth, strict=True):
            assert value.dtype == expected.dtype
            most = 1e-5 if expected.dtype == torch.float32 else unit
            assert error(value, expected.double()) < most, name


@pytest.mark.gpu
def test_gpu_the_gradient_of_a_holds_under_strong_decay():
    x, dt, A, B, C, D, dt_bias = on_gpu(1, 64, 64, 64)
    inputs = (x, dt, 8 * A, B, C, D, dt_bias + 2)
    gy = torch.randn_like(x)
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    _, saved = triton.forward(*inputs, True)
    for tile in TWO_SCANS.values():
        gradients = triton.backward(gy, *inputs, saved, tile)
        assert error(gradients[NAMES.index("A")], truth["A"]) < 1e-5
