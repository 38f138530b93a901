"""The Triton backend: correct in the interpreter, small when compiled, correct on a GPU if any.

Memory errors on a GPU: compute-sanitizer python -m pytest -m gpu -k "cut or bits" tests/<this file>
"""

import contextlib
import functools
import json
import re
import subprocess
import sys

import pytest
import torch

from tests.helpers.paths import ROOT
from tests.helpers.scan_inputs import NAMES, error, output_and_gradients, scan_inputs
from vmunet.errors import InputError
from vmunet.scan import backend, reference, ss2d, triton, triton_tiles
from vmunet.scan.triton_tiles import BACKWARD, FORWARD, SPAN, Tile

pytest.importorskip("triton")
MAPS = {"x", "dt", "B", "C", "gy", "gdt", "signal", "matrix"}  # may be in half precision
SUMS = {"A", "skip", "bias", "y", "saved", "ends", "totals", "gx", "scratch"}
SUMS |= {"gA", "gB", "gC", "gskip", "gbias"}


# ---- In the interpreter -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted():
    command = [sys.executable, "-m", "tests.helpers.interpreted_scan"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_output_and_every_gradient_are_float64s(interpreted):
    assert len(interpreted["cases"]) == 8
    for case, errors in interpreted["cases"].items():
        assert set(errors) == {"y", *NAMES}
        assert max(errors.values()) < 1e-6, (case, errors)


def test_two_runs_give_the_same_bits(interpreted):
    assert interpreted["same bits"] is True


def test_the_layout_of_an_input_changes_nothing(interpreted):
    assert interpreted["layouts"] == 0
    assert interpreted["one column"] < 1e-6


def test_half_precision_maps_are_rounded_once(interpreted):
    # The interpreter cuts float32 down to bfloat16 where a GPU rounds, so the unit is 2**-7.
    for dtype, unit in ((torch.bfloat16, 2**-7), (torch.float16, 2**-11)):
        for name, value in interpreted["halves"][str(dtype)].items():
            assert value < (1e-6 if name in ("A", "D", "dt_bias") else unit), (dtype, name)


def test_what_a_scan_launches(interpreted):
    """Beside the scan there is one launch for all sums, and one that prepares several segments."""
    whole, cut = interpreted["launches"]
    assert whole["forward"] == ["forward_kernel", "merge_kernel"]
    assert whole["backward"] == ["backward_kernel", "finish_kernel"]
    for name in ("forward", "backward"):
        assert cut[name] == ["summary_kernel", *whole[name]]


def test_it_is_a_well_formed_operator(interpreted):
    assert interpreted["operator"]["error"] < 1e-6
    assert set(interpreted["operator"]["opcheck"].values()) == {"SUCCESS"}


# ---- Compiled -----------------------------------------------------------------------------------


def compiled(capability, kernel, tile, half=False, **constants):
    from tests.helpers.compiled_kernels import compile_for
    from vmunet.scan import triton_kernels

    types = {name: "*bf16" if half and name in MAPS else "*fp32" for name in MAPS | SUMS}
    constants |= {"T": tile.T, "CH": tile.CH, "LD": tile.LD, "N": 16, "SPAN": SPAN}
    kernel = getattr(triton_kernels, kernel)
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {name: kind for name, kind in types.items() if name in kernel.arg_names}
    result = compile_for(capability, kernel, types, constants)
    exponentials = tile.T * tile.CH * 16 * tile.LD // 32  # of a lane and chunk
    inner = [loop for loop in result.loops if loop["EX2"] >= exponentials]
    per_exponential = [{op: count / exponentials for op, count in loop.items()} for loop in inner]
    return result, per_exponential


@pytest.mark.parametrize("capability", [80, 86, 90])
@pytest.mark.parametrize("half", [False, True])
def test_the_kernels_fit_into_registers(capability, half):
    for name, tiles in (("forward_kernel", FORWARD), ("backward_kernel", BACKWARD)):
        some = tiles.values() if capability == 90 and not half else [next(iter(tiles.values()))]
        for tile in some:
            result, _ = compiled(capability, name, tile, half, KEEP=True)
            # The second tile of the backward pass reads 3 values again in a loop of 147.
            assert result.spills_in_loops <= (3 if tile == BACKWARD["2 steps of 32"] else 0), tile
            assert result.spills <= 16, tile  # once in a program
            assert result.registers <= 255
            assert result.shared <= 8192  # 16 programs are resident, if registers allow
    for back in (False, True):
        tile = next(iter(BACKWARD.values()))
        result, _ = compiled(capability, "summary_kernel", tile, half, BACK=back)
        assert result.spills == 0
        assert result.registers <= 168


def test_what_a_step_costs_beside_its_exponential():
    """The exponential itself takes 8 issue slots of a scheduler."""
    _, (forward, *_) = compiled(90, "forward_kernel", FORWARD["4 steps of 32"], KEEP=False)
    assert sum(forward.values()) < 10
    assert forward["EX2"] < 1.1
    assert forward["SHFL"] <= 0.25
    _, (again, inner, *_) = compiled(90, "backward_kernel", BACKWARD["4 steps of 16"])
    assert sum(again.values()) < 9.5  # recomputes the states
    assert again.get("SHFL", 0) == 0
    assert sum(inner.values()) < 25
    assert inner["EX2"] < 1.2
    assert inner.get("SHFL", 0) <= 0.25


def test_the_kernels_compile_for_amd_too():
    import triton as language
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vmunet.scan import triton_kernels

    kernel, tile = triton_kernels.backward_kernel, next(iter(BACKWARD.values()))
    constants = {"T": tile.T, "CH": tile.CH, "LD": tile.LD, "N": 16, "SPAN": SPAN}
    signature = {
        name: "constexpr" if name in constants else "*fp32" if name in MAPS | SUMS else "i32"
        for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget("hip", "gfx942", 64)
    code = language.compile(source, target=target, options={"num_warps": 1}).asm["amdgcn"]
    assert re.findall(r"\.vgpr_spill_count:\s*(\d+)", code) == ["0"]


# ---- Choosing how to cut the work ---------------------------------------------------------------


def test_a_tile_shrinks_with_more_states():
    tile = Tile(T=8, CH=1, LD=16)
    assert [tile.fit(n).T for n in (1, 16, 17, 32, 64)] == [8, 8, 4, 4, 2]


def test_every_tile_divides_a_span():
    for tile in (*FORWARD.values(), *BACKWARD.values()):
        assert SPAN % tile.T == 0


@pytest.mark.parametrize(
    ("walks", "steps", "parts"),
    [
        (4 * 32 * 6, 4096, 1),  # a full batch fills the GPU
        (4 * 6, 4096, 64),  # one image: as many parts as have 64 steps
        (4 * 6, 65536, 66),
        (4 * 48, 64, 1),  # short walks are not cut
        (4 * 96, 65536, 4),
        (4 * 128, 65536, 1),
    ],
)
def test_walks_are_cut_where_that_fills_the_gpu(walks, steps, parts, monkeypatch):
    properties = type("Properties", (), {"multi_processor_count": 132})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert triton_tiles.segments(walks, steps, torch.device("cuda")) == parts


def test_the_fastest_tile_is_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    capturing = True
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    measured = []

    def fastest(tiles, run):
        measured.append(1)
        return "2 steps of 32"

    monkeypatch.setattr(triton_tiles, "_fastest", fastest)
    first = next(iter(BACKWARD.values()))
    assert triton_tiles.choose(BACKWARD, "work", print, torch.device("cuda")) == first
    assert not measured
    capturing = False
    for _ in range(2):
        triton_tiles._known.cache_clear()  # as a new process has it
        for _ in range(2):
            tile = triton_tiles.choose(BACKWARD, "work", print, torch.device("cuda"))
            assert tile == BACKWARD["2 steps of 32"]
    assert len(measured) == 1
    capturing = True  # known choices are used then too
    tile = triton_tiles.choose(BACKWARD, "work", print, torch.device("cuda"))
    assert tile == BACKWARD["2 steps of 32"]
    capturing = False
    (file,) = (tmp_path / "vmunet").iterdir()
    file.write_text("{broken")
    triton_tiles._known.cache_clear()
    triton_tiles.choose(BACKWARD, "work", print, torch.device("cuda"))
    assert len(measured) == 2
    key = "work: 4 steps of 16, 2 steps of 32"
    assert json.loads(file.read_text()) == {"GPU": {key: "2 steps of 32"}}
    more = {**BACKWARD, **triton_tiles.TWO_SCANS}  # other candidates are measured anew
    triton_tiles.choose(more, "work", print, torch.device("cuda"))
    assert len(measured) == 3
    triton_tiles._known.cache_clear()


# ---- Refused input ------------------------------------------------------------------------------


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    message = "needs a GPU of compute capability 8.0 or more, which Tesla T4 is not"
    assert triton.unavailable(torch.device("cuda", 99)) == message
    triton.unavailable.cache_clear()


@pytest.mark.parametrize(
    ("shape", "states", "message"),
    [
        ((1, 2, 2, 2), 65, "65 states; the triton backend takes up to 64"),
        ((65536, 1, 1, 1), 1, "up to 65535 images at once, not 65536"),
        ((1, 32768, 32768, 2), 1, "an image of 32768x32768 pixels with 2 channels is too large"),
        ((1, 4096, 4096, 192), 16, "an image of 4096x4096 pixels with 192 channels is too large"),
    ],
)
def test_what_its_offsets_cannot_reach_is_refused(shape, states, message):
    b, h, w, d = shape
    x = torch.empty(shape, device="meta")
    maps = (torch.empty(b, h, w, 4, size, device="meta") for size in (d, states, states))
    A = torch.empty(4, d, states, device="meta")
    D = torch.empty(4, d, device="meta")
    dt, B, C = maps
    with pytest.raises(InputError, match=message):
        triton.forward(x, dt, A, B, C, D, D, False)


# ---- On a GPU -----------------------------------------------------------------------------------

TOLERANCES = {  # mamba's own, relative and absolute
    torch.float32: (6e-4, 2e-3),
    torch.float16: (3e-3, 5e-3),
    torch.bfloat16: (3e-2, 5e-2),
}
SIDES = [(7, 7), (8, 8), (14, 14), (16, 16), (28, 28), (32, 32), (56, 56), (64, 64), (256, 256)]


def on_gpu(*shape, dtype=torch.float32):
    x, dt, A, B, C, D, dt_bias = (tensor.cuda() for tensor in scan_inputs(*shape))
    x, dt, B, C = (tensor.to(dtype) for tensor in (x, dt, B, C))
    return [tensor.requires_grad_() for tensor in (x, dt, A, B, C, D, dt_bias)]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("side", SIDES)
def test_gpu_output_and_gradients(side, dtype):
    inputs = on_gpu(2, *side, 20, dtype=dtype)
    gy = torch.randn_like(inputs[0])
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    with backend("triton"):
        y = ss2d(*inputs)
    got = dict(zip(("y", *NAMES), (y, *torch.autograd.grad(y, inputs, gy)), strict=True))
    rtol, atol = TOLERANCES[dtype]
    for name, value in got.items():
        scale = truth[name].abs().max().item() if name != "y" else 1.0
        torch.testing.assert_close(
            value.double(), truth[name], rtol=rtol, atol=atol * max(scale, 1.0), msg=name
        )
        if dtype == torch.float32:
            assert error(value, truth[name]) < 1e-5, name


@pytest.mark.gpu
@pytest.mark.parametrize("tile", BACKWARD.values())
@pytest.mark.parametrize("segments", [1, 5])
def test_gpu_every_tile_and_cut_gives_the_same_values(tile, segments):
    inputs = [tensor.detach() for tensor in on_gpu(1, 40, 36, 70)]
    gy = torch.randn_like(inputs[0])
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    for forward_tile in FORWARD.values():
        y, saved = triton.forward(*inputs, True, forward_tile, segments)
        assert error(y, truth["y"]) < 1e-5
    gradients = triton.backward(gy, *inputs, saved, tile, segments)
    for name, value in zip(NAMES, gradients, strict=True):
        assert error(value, truth[name]) < 1e-5, name


@pytest.mark.gpu
def test_gpu_two_runs_give_the_same_bits():
    inputs = on_gpu(4, 64, 64, 192)
    runs = []
    for _ in range(2):
        y = ss2d(*inputs)
        runs.append((y, *torch.autograd.grad(y, inputs, torch.ones_like(y))))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_a_scan_launches_few_kernels(dtype):
    from torch.profiler import ProfilerActivity, profile

    inputs = on_gpu(8, 32, 32, 192, dtype=dtype)  # enough programs for one segment
    gy = torch.randn_like(inputs[0])
    tile, first = next(iter(BACKWARD.values())), next(iter(FORWARD.values()))
    maps = [tensor.detach() for tensor in inputs]

    def launched(run):
        run()  # compiles
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            run()
            torch.cuda.synchronize()
        return sum(event.count for event in profiled.key_averages() if "emcpy" not in event.key)

    _, saved = triton.forward(*maps, True, first, 1)
    assert launched(lambda: triton.forward(*maps, True, first, 1)) <= 3
    for some in (tile, *triton_tiles.TWO_SCANS.values()):
        run = functools.partial(triton.backward, gy, *maps, saved, some, 1)
        assert launched(run) <= 5, some


@pytest.mark.gpu
def test_gpu_operator():
    torch.library.opcheck(torch.ops.vmunet.ss2d.default, (*on_gpu(1, 6, 5, 20), "triton", True))
