"""The backend `mamba`: against the reference, by a stand-in on a CPU and by mamba-ssm on a GPU."""

import sys

import pytest
import torch

from tests.helpers import mamba_stand_in
from tests.helpers.scan_inputs import NAMES, error, output_and_gradients, scan_inputs
from vmunet import VMUNet
from vmunet.errors import InputError
from vmunet.scan import backend, mamba, reference, ss2d
from vmunet.scan.mamba import cross_merge, cross_scan, in_time_order

SHAPES = [(1, 1, 1, 1, 1), (1, 1, 6, 2, 2), (2, 5, 1, 3, 4), (2, 3, 5, 6, 3), (1, 7, 4, 5, 16)]


@pytest.fixture
def stand_in(monkeypatch):
    mamba_stand_in.install(monkeypatch)
    monkeypatch.setattr(mamba, "unavailable", lambda device: "")


def errors(inputs, gy):
    """Of y and the seven gradients, against float64."""
    truth = output_and_gradients(reference.ss2d, inputs, gy, torch.float64)
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    with backend("mamba"):
        y = ss2d(*inputs)
    got = dict(zip(("y", *NAMES), (y, *torch.autograd.grad(y, inputs, gy)), strict=True))
    for name, tensor in zip(("y", *NAMES), (inputs[0], *inputs), strict=True):
        assert got[name].dtype == tensor.dtype, name
    return {name: error(value, truth[name]) for name, value in got.items()}


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_the_references(shape):
    inputs = scan_inputs(*shape)
    found = errors(inputs, torch.randn(inputs[0].shape))
    assert max(found.values()) < 5e-6, found


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_scanned_in_float32(dtype):
    x, dt, A, B, C, D, dt_bias = scan_inputs(2, 3, 5, 6, 3)
    inputs = (x.to(dtype), dt.to(dtype), A, B.to(dtype), C.to(dtype), D, dt_bias)
    found = errors(inputs, torch.randn(x.shape).to(dtype))
    limits = {torch.float32: 5e-6, dtype: torch.finfo(dtype).eps}
    for name, tensor in zip(("y", *NAMES), (x.to(dtype), *inputs), strict=True):
        assert found[name] < limits[tensor.dtype], name


@pytest.mark.usefixtures("stand_in")
def test_it_is_a_well_formed_operator():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 3, 2, 5, 2)]
    torch.library.opcheck(torch.ops.vmunet.ss2d.default, (*inputs, "mamba", True))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_trains_with_it(compiled):
    torch.manual_seed(0)
    tiny = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1), "drop_path_rate": 0.0}
    model = VMUNet(dims=(8, 16, 32, 64), **tiny)
    images = 255 * torch.rand(1, 3, 32, 64)
    results = []
    for name in ("reference", "mamba"):
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        model.zero_grad()
        with backend(name):
            logits = run(images)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
        torch.compiler.reset()  # a compiled model keeps its backend
    for expected, value in zip(*results, strict=True):
        assert error(value, expected.double()) < 1e-4


def test_copies_are_in_the_order_of_the_directions():
    x = torch.randn(2, 3, 4, 5)
    image = x.permute(0, 2, 3, 1).unsqueeze(3).expand(-1, -1, -1, 4, -1)  # (b, h, w, 4, d)
    copies = cross_scan(x)
    assert torch.equal(copies, in_time_order(image))
    torch.testing.assert_close(cross_merge(copies, 4, 5), 4 * x.flatten(2))


def test_without_the_package_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)  # cannot be imported
    message = "'mamba' needs the package mamba-ssm with its CUDA scan, which is not installed: use"
    with pytest.raises(InputError, match=message), backend("mamba"):
        ss2d(*scan_inputs(1, 2, 2, 2))


def test_it_refuses_another_device(monkeypatch):
    mamba_stand_in.install(monkeypatch)
    message = "'mamba' takes CUDA tensors, not cpu tensors: use the backend 'reference'"
    with pytest.raises(InputError, match=message), backend("mamba"):
        ss2d(*scan_inputs(1, 2, 2, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, (2, 64, 64, 20, 16)])
def test_gpu_output_and_gradients(shape):
    pytest.importorskip("selective_scan_cuda")
    inputs = [tensor.cuda() for tensor in scan_inputs(*shape)]
    found = errors(inputs, torch.randn_like(inputs[0]))
    assert max(found.values()) < 1e-5, found
