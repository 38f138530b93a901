"""mamba-ssm's `selective_scan_fn` in plain PyTorch, after its documentation.

Like the original it is an autograd function with a backward pass of its own: inside an operator
autograd does not record PyTorch's own operations.
"""

import sys
from types import ModuleType

import torch
import torch.nn.functional as F

INTERFACE = "mamba_ssm.ops.selective_scan_interface"


def install(monkeypatch):
    """Make the stand-in importable as mamba-ssm, with a compiled part that is empty."""
    names = "selective_scan_cuda", "mamba_ssm", "mamba_ssm.ops", INTERFACE
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[INTERFACE].selective_scan_fn = selective_scan_fn


def selective_scan_fn(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
):
    """u, delta (b, d, l), A (d, n), B, C (b, groups, n, l), D, delta_bias (d) -> (b, d, l)."""
    assert z is None
    assert delta_softplus
    assert not return_last_state
    (b, d, length), n, groups = u.shape, A.shape[1], B.shape[1]
    assert delta.shape == u.shape
    assert A.shape == (d, n)
    assert B.shape == C.shape == (b, groups, n, length)
    assert D.shape == delta_bias.shape == (d,)
    # The CUDA scan wants one type for the maps, and float32 for the parameters.
    assert {tensor.dtype for tensor in (u, delta, A, B, C, D, delta_bias)} == {torch.float32}
    return _Scan.apply(u, delta, A, B, C, D, delta_bias)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, bias):
        ctx.save_for_backward(u, delta, A, B, C, D, bias)
        states = _states(u, delta, A, B, bias)
        return (_each(C, u) * states).sum(2) + D[:, None] * u

    @staticmethod
    def backward(ctx, gy):
        u, delta, A, B, C, D, bias = ctx.saved_tensors
        step, wide, gy = (
            F.softplus(delta + bias[:, None])[:, :, None],
            u[:, :, None],
            gy[:, :, None],
        )
        states = _states(u, delta, A, B, bias)
        decay = torch.exp(step * A[..., None])
        reached = list((gy * _each(C, u)).unbind(-1))  # the states' gradients
        for t in reversed(range(len(reached) - 1)):
            reached[t] = reached[t] + decay[..., t + 1] * reached[t + 1]
        g = torch.stack(reached, -1)  # (b, d, n, l)
        gexponent = g * F.pad(states, (1, 0))[..., :-1] * decay
        gstep = (gexponent * A[..., None] + g * _each(B, u) * wide).sum(2)
        gdelta = gstep * torch.sigmoid(delta + bias[:, None])
        of_group = (1, (B.shape[1], -1))
        return (
            (g * _each(B, u) * step).sum(2) + D[:, None] * gy[:, :, 0],
            gdelta,
            (gexponent * step).sum((0, 3)),
            (g * step * wide).unflatten(*of_group).sum(2),
            (gy * states).unflatten(*of_group).sum(2),
            (gy[:, :, 0] * u).sum((0, 2)),
            gdelta.sum((0, 2)),
        )


def _each(matrix, u):
    """A group's matrix for each of its channels: (b, groups, n, l) -> (b, d, n, l)."""
    return matrix.repeat_interleave(u.shape[1] // matrix.shape[1], dim=1)


def _states(u, delta, A, B, bias):
    """The state after every step, (b, d, n, l)."""
    step = F.softplus(delta + bias[:, None])[:, :, None]
    decay, added = torch.exp(step * A[..., None]), step * u[:, :, None] * _each(B, u)
    state, states = 0.0, []
    for t in range(u.shape[2]):
        state = decay[..., t] * state + added[..., t]
        states.append(state)
    return torch.stack(states, -1)
