"""The operator: its definition, its laws, the choice of a backend, refused input."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vmunet.scan
import vmunet.scan.triton
from tests.helpers.scan_inputs import error, scan_inputs
from vmunet.errors import InputError
from vmunet.scan import backend, ss2d, ss2d_projected
from vmunet.scan.operator import _laid_out_like, _parts, project, weight_gradient

SHAPES = st.tuples(*(st.integers(1, size) for size in (2, 4, 4, 3, 4)))  # b, h, w, d, n
EITHER = pytest.mark.parametrize("name", ["reference", "cpu"])  # test_triton tests the third
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def naive(x, dt, A, B, C, D, dt_bias):
    """The recurrence of `ss2d`'s docstring, one number at a time."""
    b, h, w, d = x.shape
    rows = [(i, j) for i in range(h) for j in range(w)]
    columns = [(i, j) for j in range(w) for i in range(h)]
    y = np.zeros(x.shape)
    for image in range(b):
        for k, walk in enumerate((rows, columns, rows[::-1], columns[::-1])):
            for c in range(d):
                state = np.zeros(A.shape[2])
                for i, j in walk:
                    delta = np.log1p(np.exp(dt[image, i, j, k, c] + dt_bias[k, c]))
                    step = delta * x[image, i, j, c]
                    state = np.exp(delta * A[k, c]) * state + step * B[image, i, j, k]
                    y[image, i, j, c] += C[image, i, j, k] @ state + D[k, c] * x[image, i, j, c]
    return y


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 100))
def test_the_reference_is_the_recurrence(shape, seed):
    inputs = scan_inputs(*shape, seed=seed, dtype=torch.float64)
    truth = naive(*(tensor.numpy() for tensor in inputs))
    np.testing.assert_allclose(ss2d(*inputs).numpy(), truth, rtol=1e-12, atol=1e-12)


def test_the_references_gradients_are_its_derivatives():
    inputs = scan_inputs(2, 2, 3, 2, 3, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(ss2d, inputs)


# ---- Laws ---------------------------------------------------------------------------------------


def turned(inputs, order, move):
    """The inputs of an image moved by `move`, whose directions are those of `order`."""
    x, dt, A, B, C, D, dt_bias = inputs
    maps = (move(image[:, :, :, order]) for image in (dt, B, C))
    dt, B, C = maps
    return move(x), dt, A[order], B, C, D[order], dt_bias[order]


@EITHER
@settings(max_examples=10, deadline=None)
@given(shape=SHAPES)
def test_transposing_the_image_exchanges_rows_and_columns(name, shape):
    inputs = scan_inputs(*shape)
    with backend(name):
        y = ss2d(*turned(inputs, [1, 0, 3, 2], lambda image: image.transpose(1, 2)))
        torch.testing.assert_close(y.transpose(1, 2), ss2d(*inputs), **TOLERANCE)


@EITHER
@settings(max_examples=10, deadline=None)
@given(shape=SHAPES)
def test_turning_the_image_exchanges_forward_and_back(name, shape):
    inputs = scan_inputs(*shape)
    with backend(name):
        y = ss2d(*turned(inputs, [2, 3, 0, 1], lambda image: image.flip(1, 2)))
        torch.testing.assert_close(y.flip(1, 2), ss2d(*inputs), **TOLERANCE)


@EITHER
def test_it_is_linear_in_x(name):
    x, *others = scan_inputs(2, 5, 4, 7)
    other = scan_inputs(2, 5, 4, 7, seed=1)[0]
    with backend(name):
        y = ss2d(2 * x - 3 * other, *others)
        torch.testing.assert_close(
            y, 2 * ss2d(x, *others) - 3 * ss2d(other, *others), rtol=1e-4, atol=1e-4
        )


@EITHER
@pytest.mark.parametrize("k", range(4))
def test_a_direction_sees_only_the_pixels_before(name, k):
    h, w, pixel = 3, 4, (1, 2)
    x, dt, A, B, C, D, dt_bias = scan_inputs(1, h, w, 2)
    C = torch.where(torch.arange(4)[:, None] == k, C, 0.0)  # this direction only
    changed = x.clone()
    changed[0, *pixel] += 1
    with backend(name):
        ys = [ss2d(image, dt, A, B, C, 0 * D, dt_bias) for image in (x, changed)]
    rows = torch.arange(h * w).view(h, w)
    columns = torch.arange(h * w).view(w, h).T
    time = (rows, columns, -rows, -columns)[k]
    differs = (ys[0] != ys[1]).any(-1)[0]
    assert torch.equal(differs, time >= time[pixel])


@EITHER
def test_images_of_a_batch_do_not_meet(name):
    inputs = scan_inputs(3, 4, 5, 6)
    x, dt, A, B, C, D, dt_bias = inputs
    with backend(name):
        alone = ss2d(x[1:2], dt[1:2], A, B[1:2], C[1:2], D, dt_bias)
        torch.testing.assert_close(ss2d(*inputs)[1:2], alone, **TOLERANCE)


@EITHER
def test_autocast_leaves_the_state_in_float32(name):
    inputs = scan_inputs(1, 6, 6, 4)
    with backend(name):
        plain = ss2d(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ss2d(*inputs), plain)


@EITHER
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_give_the_float32_result_rounded(name, dtype):
    x, dt, A, B, C, D, dt_bias = scan_inputs(2, 5, 4, 20)
    maps = [tensor.to(dtype) for tensor in (x, dt, B, C)]
    with backend(name):
        x, dt, B, C = (tensor.float() for tensor in maps)
        truth = ss2d(x, dt, A, B, C, D, dt_bias)
        x, dt, B, C = (tensor.requires_grad_() for tensor in maps)
        y = ss2d(x, dt, A, B, C, D, dt_bias)
        y.sum().backward()
    assert y.dtype == x.grad.dtype == dt.grad.dtype == dtype
    torch.testing.assert_close(y.float(), truth, rtol=2**-8, atol=2**-12)


# ---- Choosing a backend -------------------------------------------------------------------------


@pytest.fixture
def chosen(monkeypatch):
    """The names of the backends that were called, in order."""
    calls = []
    monkeypatch.setattr(vmunet.scan.reference, "ss2d", lambda *inputs: calls.append("reference"))
    monkeypatch.setattr(vmunet.scan.operator, "scan", lambda name, *inputs: calls.append(name))
    return calls


def test_the_type_chooses_unless_a_backend_is_forced(chosen):
    single, double = scan_inputs(1, 2, 2, 2), scan_inputs(1, 2, 2, 2, dtype=torch.float64)
    half = [tensor.bfloat16() for tensor in single]
    for inputs in (single, double, half):
        ss2d(*inputs)
    with backend("reference"):
        ss2d(*single)
        with backend("cpu"):
            ss2d(*single)
        ss2d(*single)
        thread = threading.Thread(target=ss2d, args=single)
        thread.start()
        thread.join()
    assert chosen == ["cpu", "reference", "cpu", "reference", "cpu", "reference", "cpu"]


def test_an_error_inside_the_block_ends_it(chosen):
    with pytest.raises(ZeroDivisionError), backend("reference"):
        _ = 1 / 0
    ss2d(*scan_inputs(1, 2, 2, 2))
    assert chosen == ["cpu"]


@pytest.mark.parametrize("name", ["cuda", "numba", ""])
def test_an_unknown_backend_is_refused(name):
    message = f"no scan backend {name!r}: choose one of reference, cpu, triton"
    with pytest.raises(InputError, match=message), backend(name):
        pass


@pytest.mark.parametrize("name", ["cpu", "triton"])
def test_the_compiled_backends_refuse_float64(name):
    inputs = scan_inputs(1, 2, 2, 2, dtype=torch.float64)
    message = "takes float32, bfloat16 or float16, not float64: use the backend 'reference'"
    with pytest.raises(InputError, match=message), backend(name):
        ss2d(*inputs)


@pytest.mark.parametrize(("name", "place"), [("cpu", "meta"), ("triton", "cpu")])
def test_a_forced_backend_refuses_another_device(name, place):
    if name == "triton":
        pytest.importorskip("triton")
    inputs = [tensor.to(place) for tensor in scan_inputs(1, 2, 2, 2)]
    message = f"{name!r} takes C.* tensors, not {place} tensors: use the backend 'reference'"
    with pytest.raises(InputError, match=message), backend(name):
        ss2d(*inputs)


@pytest.mark.parametrize("device", ["xpu", "cuda"])
def test_a_device_without_kernels_warns_once(device, monkeypatch):
    monkeypatch.setattr(vmunet.scan.triton, "unavailable", lambda device: "needs what is not here")
    vmunet.scan._warn_slow.cache_clear()
    message = {"xpu": "no scan kernel for xpu devices", "cuda": "'triton' needs what is not here"}
    device = torch.device(device)
    with pytest.warns(UserWarning, match=message[device.type] + ".*slow reference"):
        assert vmunet.scan._choose(device, double=False) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vmunet.scan._choose(device, double=False) == "reference"
        assert vmunet.scan._choose(device, double=True) == "reference"


def test_importing_the_scan_does_not_import_numba():
    code = (
        "import sys, vmunet.scan, vmunet.scan.cpu, vmunet.scan.triton;"
        "assert not {'numba', 'triton', 'torch._dynamo'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Refused input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (
            0,
            lambda x: x[0],
            r"x has shape \(4, 5, 6\), expected \(batch, height, width, channels\)",
        ),
        (0, lambda x: x[:, :0], r"x has shape \(2, 0, 5, 6\).*none 0"),
        (
            1,
            lambda dt: dt[..., :3, :],
            r"dt has shape \(2, 4, 5, 3, 6\), expected \(2, 4, 5, 4, 6\)",
        ),
        (2, lambda A: A.mT, r"A has shape \(4, 3, 6\), expected \(4, 6, 6\)"),
        (2, lambda A: A[0], r"A has shape \(6, 3\), expected \(4, channels, states\)"),
        (3, lambda B: B[..., :2], r"B has shape \(2, 4, 5, 4, 2\), expected \(2, 4, 5, 4, 3\)"),
        (4, lambda C: C[:1], r"C has shape \(1, 4, 5, 4, 3\), expected \(2, 4, 5, 4, 3\)"),
        (5, lambda D: D[0], r"D has shape \(6,\), expected \(4, 6\)"),
        (6, lambda bias: bias.flatten(), r"dt_bias has shape \(24,\), expected \(4, 6\)"),
        (3, lambda B: B.long(), "B is torch.int64, expected a floating-point type"),
        (4, lambda C: C.to("meta"), "C is on meta but x is on cpu"),
    ],
)
def test_inputs_that_do_not_fit_are_named(which, change, message):
    inputs = list(scan_inputs(2, 4, 5, 6, 3))
    inputs[which] = change(inputs[which])
    with pytest.raises(InputError, match=message):
        ss2d(*inputs)


def test_the_float32_reference_is_close_to_float64():
    inputs = scan_inputs(1, 16, 16, 8)
    with backend("reference"):
        truth = ss2d(*(tensor.double() for tensor in inputs))
        assert error(ss2d(*inputs), truth) < 1e-6


# ---- With dt by its factors ---------------------------------------------------------------------


def factored_inputs(dtype=torch.float32):
    x, _, *others = scan_inputs(2, 3, 5, 16, 4)
    generator = torch.Generator().manual_seed(3)
    step = torch.randn(2, 3, 5, 4, 2, generator=generator).to(dtype)
    weight = 0.1 * torch.randn(4, 16, 2, generator=generator)
    inputs = [x.to(dtype), step, weight, *others]
    return [tensor.requires_grad_() for tensor in inputs]


@EITHER
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_of_dt_give_the_same_scan(name, dtype):
    x, step, weight, *others = inputs = factored_inputs(dtype)
    truth = torch.einsum("bhwkr,kdr->bhwkd", step.float(), weight.to(dtype).float()).to(dtype)
    with backend(name):
        torch.testing.assert_close(project(step, weight), truth)
        y = ss2d_projected(*inputs)
        plain = ss2d(x, project(step, weight), *others)
        assert torch.equal(y, plain)
        gy = torch.randn_like(y)
        gradients = torch.autograd.grad(y, inputs, gy)
        for gradient, truth in zip(gradients, torch.autograd.grad(plain, inputs, gy), strict=True):
            torch.testing.assert_close(gradient, truth)


def test_factors_of_dt_are_kept_instead_of_it():
    inputs = factored_inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        ss2d_projected(*inputs)
    assert inputs[1].shape in {tensor.shape for tensor in kept}
    assert max(tensor.numel() for tensor in kept if tensor.ndim == 5) < 2 * 3 * 5 * 4 * 16
    with torch.no_grad():
        assert not ss2d_projected(*inputs).requires_grad


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.integers(0, 100)
)
def test_the_weights_gradient_in_parts_is_that_in_one(parts, share, channels, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = parts * share
    gdt = torch.randn(4, pixels, channels, generator=generator)
    beside = torch.randn(pixels, 4, rank + 3, generator=generator)  # a slice of a projection
    factors = beside.transpose(0, 1)[..., :rank]
    truth = torch.einsum("kpd,kpr->kdr", gdt.double(), factors.double())
    for count in (1, parts):
        value = weight_gradient(gdt, factors, count)
        torch.testing.assert_close(value.double(), truth, rtol=1e-5, atol=1e-5)
    half = weight_gradient(gdt.bfloat16(), factors.bfloat16(), parts)
    assert half.shape == truth.shape
    assert half.dtype == (torch.float32 if parts > 1 else torch.bfloat16)  # summed in float32


@pytest.mark.parametrize(
    ("pixels", "cuda", "parts"),
    [
        (32 * 64 * 64, True, 32),
        (32 * 64 * 64, False, 1),  # on a processor nothing changes
        (32 * 16 * 16, True, 1),
        (2**14 + 1, True, 1),
    ],
)
def test_the_weights_gradient_is_cut_for_many_pixels_on_a_gpu(pixels, cuda, parts):
    gdt = type("Gradient", (), {"shape": (4, pixels, 192), "is_cuda": cuda})
    assert _parts(gdt) == parts


@pytest.mark.gpu
def test_gpu_the_weights_gradient():
    pixels, channels, rank = 2**15, 192, 6
    gdt = torch.randn(4, pixels, channels, device="cuda")
    factors = torch.randn(pixels, 4, rank + 32, device="cuda").transpose(0, 1)[..., :rank]
    truth = gdt.double().transpose(1, 2) @ factors.double()
    assert error(weight_gradient(gdt, factors, _parts(gdt)), truth) < 1e-5
    gdt, factors = gdt.bfloat16(), factors.bfloat16()
    truth = gdt.double().transpose(1, 2) @ factors.double()
    assert error(weight_gradient(gdt, factors, _parts(gdt)), truth) < 2**-7


def strides_of_a_view(dims, order, gaps):
    """A view of this shape whose axes lie in memory in `order`, with gaps."""
    wide = [size + gap for size, gap in zip(dims, gaps, strict=True)]
    base = torch.empty([wide[axis] for axis in order])
    view = base.permute([order.index(axis) for axis in range(len(dims))])
    return view[tuple(slice(0, size) for size in dims)]


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 4)] * 4),
    st.permutations(range(4)),
    st.tuples(*[st.integers(0, 2)] * 4),
)
def test_a_gradient_is_laid_out_like_its_input(dims, order, gaps):
    tensor = strides_of_a_view(dims, order, gaps)
    gradient = torch.randn(dims)
    for _ in range(2):  # the second time from memory
        laid_out = _laid_out_like(gradient, tensor)
        assert laid_out.stride() == torch.empty_like(tensor).stride()
        assert torch.equal(laid_out, gradient)


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (1, lambda step: step[..., :1], r"step has shape \(2, 3, 5, 4, 1\), expected .*4, rank\)"),
        (1, lambda step: step[:, :, :4], r"dt has shape \(2, 3, 4, 4, 16\), expected \(2, 3, 5,"),
        (2, lambda weight: weight[:, :8], r"dt has shape \(2, 3, 5, 4, 8\), expected \(2, 3, 5,"),
    ],
)
def test_factors_that_do_not_fit_are_named(which, change, message):
    inputs = factored_inputs()
    inputs[which] = change(inputs[which])
    with pytest.raises(InputError, match=message):
        ss2d_projected(*inputs)


# ---- As an operator -----------------------------------------------------------------------------


def test_it_is_a_well_formed_operator():
    for channels in (16, 5):
        inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 3, 2, channels)]
        torch.library.opcheck(torch.ops.vmunet.ss2d.default, (*inputs, "cpu", True))


def test_differentiating_twice_is_refused():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 2, 2, 16)]
    (gx,) = torch.autograd.grad(ss2d(*inputs).square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        gx.sum().backward()


def test_a_compiled_model_has_no_graph_break_at_the_scan():
    torch.manual_seed(0)
    model = vmunet.VMUNet(dims=(8, 16, 32, 64), drop_path_rate=0.0, depths_decoder=(1, 1, 1, 1))
    images = 255 * torch.rand(1, 3, 32, 32)
    results = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        logits = run(images)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)
