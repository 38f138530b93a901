"""The CPU backend against the reference in float64: output, every gradient, layouts, threads."""

import multiprocessing
import runpy
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core import caching, event

from tests.helpers.scan_inputs import error, output_and_gradients, scan_inputs
from vmunet.scan import backend, cpu, cpu_kernels, cpu_lanes, reference, ss2d


def scan(*inputs):
    with backend("cpu"):
        return ss2d(*inputs)


SHAPES = st.tuples(  # b, h, w, d, n
    st.integers(1, 2),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([1, 5, 16, 17, 97, 112]),
    st.sampled_from([1, 2, 3, 16, 17]),
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradient_like(inputs, seed=0):
    return torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=80, deadline=None, derandomize=True)  # a sum may cancel: no new seeds
@given(SHAPES)
@example((1, 1, 1, 1, 1))
@example((2, 1, 33, 97, 16))
@example((1, 16, 1, 16, 16))
def test_small_shapes(shape):
    seed = sum(shape)
    inputs = scan_inputs(*shape, seed=seed)
    gy = gradient_like(inputs, seed)
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    got = output_and_gradients(scan, inputs, gy, torch.float32)
    for name, value in got.items():
        assert value.shape == truth[name].shape
        # with one pixel the state before is 0, and so is the gradient of A
        scale = truth[name].abs().max().clamp(min=1e-7)
        assert ((value - truth[name]).abs().max() / scale).item() < 3e-5, name


@pytest.mark.parametrize(
    "shape", [(1, 64, 64, 4), (2, 16, 16, 100), (1, 20, 37, 24, 8), (1, 1, 2048, 3), (1, 4, 4, 384)]
)
def test_it_is_as_exact_as_the_float32_reference(shape):
    inputs = scan_inputs(*shape)
    gy = gradient_like(inputs)
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    plain = output_and_gradients(reference.ss2d, inputs, gy, torch.float32)
    got = output_and_gradients(scan, inputs, gy, torch.float32)
    for name, value in got.items():
        assert error(value, truth[name]) < 2e-6, name
        assert error(value, truth[name]) <= 3 * max(error(plain[name], truth[name]), 1e-7), name


def test_large_steps_neither_overflow_nor_vanish():
    x, dt, A, B, C, D, dt_bias = scan_inputs(1, 5, 6, 20)
    dt = torch.linspace(-150, 150, dt.numel()).view(dt.shape)
    inputs = (x, dt, 4 * A, B, C, D, dt_bias)
    gy = gradient_like(inputs)
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    got = output_and_gradients(scan, inputs, gy, torch.float32)
    for name, value in got.items():
        assert error(value, truth[name]) < 3e-5, name


# ---- Layouts ------------------------------------------------------------------------------------


def test_the_layout_of_an_input_changes_nothing():
    inputs = scan_inputs(2, 5, 3, 32)
    gy = gradient_like(inputs)
    plain = output_and_gradients(scan, [t.contiguous() for t in inputs], gy, torch.float32)

    def odd(tensor):
        """The same values in memory that has its last axis first and gaps between."""
        wide = tensor.new_zeros(tensor.shape[-1], *tensor.shape[:-1], 2)
        wide[..., 0] = tensor.movedim(-1, 0)
        return wide[..., 0].movedim(0, -1)

    for change in (lambda tensor: tensor, odd):
        changed = [change(tensor) for tensor in inputs]
        got = output_and_gradients(scan, changed, odd(gy), torch.float32)
        assert all(torch.equal(got[name], plain[name]) for name in plain)


def test_the_projections_dt_is_not_copied_and_its_gradient_has_its_layout():
    inputs = scan_inputs(2, 5, 3, 32)
    assert cpu._lay_out(*inputs)[1].data_ptr() == inputs[1].data_ptr()
    inputs = [tensor.requires_grad_() for tensor in inputs]
    (gdt,) = torch.autograd.grad(scan(*inputs).sum(), inputs[1])  # an expanded gradient of y
    assert gdt.stride() == inputs[1].stride()


def test_expanded_inputs_get_gradients_of_their_own_shape():
    x, dt, A, B, C, D, dt_bias = scan_inputs(2, 3, 4, 16)
    dt = dt[:, :, :, :1].expand(-1, -1, -1, 4, -1)
    inputs = (x, dt, A, B[:1].expand(2, -1, -1, -1, -1), C, D, dt_bias)
    gy = gradient_like(inputs)
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    got = output_and_gradients(scan, inputs, gy, torch.float32)
    assert all(error(value, truth[name]) < 2e-6 for name, value in got.items())


def test_a_scan_without_gradients_is_the_same_scan():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 5, 7, 40)]
    with torch.no_grad():
        y = scan(*inputs)
    assert not y.requires_grad
    assert torch.equal(y, scan(*inputs))


@pytest.mark.parametrize("channels", [16, 20])
def test_the_output_may_be_changed_in_place_and_a_used_input_may_not(channels):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 3, 4, channels)]
    (truth,) = torch.autograd.grad((2 * scan(*inputs)).sum(), inputs[0])
    (got,) = torch.autograd.grad(scan(*inputs).mul_(2).sum(), inputs[0])
    assert torch.equal(got, truth)
    with torch.inference_mode():
        assert torch.equal(scan(*inputs), scan(*inputs))
    if channels % cpu.LANES == 0:  # others are copied
        x = inputs[0] + 0
        y = scan(x, *inputs[1:])
        x.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


# ---- Threads and processes ----------------------------------------------------------------------


def test_any_number_of_threads_gives_the_same_bits():
    inputs = scan_inputs(3, 9, 7, 200)
    gy = gradient_like(inputs)
    runs = []
    for threads in (1, 2, 3, 8, 1):
        torch.set_num_threads(threads)
        runs.append(output_and_gradients(scan, inputs, gy, torch.float32))
    for run in runs[1:]:
        assert all(torch.equal(run[name], runs[0][name]) for name in run)


def test_threads_may_scan_at_the_same_time():
    torch.set_num_threads(2)
    inputs = scan_inputs(4, 6, 7, 20)
    truth = scan(*inputs)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: scan(*inputs), range(60)))
    assert all(torch.equal(result, truth) for result in results)


def in_a_fork(queue, inputs):
    queue.put(scan(*inputs).sum().item())


def test_a_forked_process_makes_its_own_threads():
    torch.set_num_threads(2)
    inputs = scan_inputs(4, 3, 3, 8)
    here = scan(*inputs).sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=in_a_fork, args=(queue, inputs))
    process.start()
    assert queue.get(timeout=60) == here
    process.join()


# ---- Kernels ------------------------------------------------------------------------------------


def test_without_a_place_for_the_cache_it_compiles_anyway(monkeypatch):
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])

    @cpu_kernels.compiled(numba.int64[::1])
    def fill_with_ones(array):
        for i in range(array.shape[0]):
            array[i] = 1

    array = np.zeros(3, np.int64)
    fill_with_ones(array)
    assert array.tolist() == [1, 1, 1]


def test_the_notice_appears_only_when_something_is_compiled(tmp_path, capsys):
    script = tmp_path / "kernel.py"
    script.write_text(
        "from numba import int64, njit, void\n"
        "@njit(void(int64[::1]), cache=True)\n"
        "def fill(array):\n"
        "    array[:] = 1\n"
    )
    notices = []
    for _ in range(2):
        with event.install_listener("numba:compile", cpu._notice()):
            runpy.run_path(str(script))
        notices.append(capsys.readouterr().err)
    assert notices == ["compiling the CPU scan: once on a machine, in 5 to 20 seconds\n", ""]


@numba.njit
def functions(x, powers, exponentials, softplus, slope):
    for i in range(0, x.size, 16):
        v = cpu_lanes.load(x, (i,))
        cpu_lanes.store(powers, (i,), cpu_lanes.exp2(v))
        cpu_lanes.store(exponentials, (i,), cpu_lanes.exp(v))
        value, derivative = cpu_lanes.softplus(v)
        cpu_lanes.store(softplus, (i,), value)
        cpu_lanes.store(slope, (i,), derivative)


def test_the_polynomials_are_within_two_units_of_the_last_place():
    x = np.concatenate([np.linspace(-80, 80, 16000), np.linspace(-0.1, 0.1, 16000)])
    x = x.astype(np.float32)
    results = np.empty((4, x.size), np.float32)
    functions(x, *results)
    x = x.astype(np.float64)
    truths = (2**x, np.exp(x), np.logaddexp(0, x), 1 / (1 + np.exp(-x)))
    for result, truth in zip(results, truths, strict=True):
        assert np.abs(result / truth - 1).max() < 2 * 2**-23
