"""Initial values of the state-space parameters (the published code; mamba's and S4D's schemes)."""

import math

import torch
from torch import Tensor

STEP_MIN, STEP_MAX, STEP_FLOOR = 1e-3, 1e-1, 1e-4


@torch.no_grad()
def init_uniform_fan_in(weight: Tensor) -> None:
    """Uniform within +-1/sqrt(fan in), nn.Linear's default; fan in is the last axis."""
    bound = weight.shape[-1] ** -0.5
    weight.uniform_(-bound, bound)


@torch.no_grad()
def init_step_size(weight: Tensor, bias: Tensor) -> None:
    """The projection to delta, `weight (K, D, R)` and `bias (K, D)`.

    Weights are uniform within +-R^-0.5. The bias is the inverse softplus of a log-uniform draw
    in [1e-3, 1e-1], floored at 1e-4, so that delta starts in that range.
    """
    bound = weight.shape[-1] ** -0.5
    weight.uniform_(-bound, bound)
    if bias.is_meta:  # it has no values, and arithmetic on it would load torch's compiler (1 s)
        return
    low, high = math.log(STEP_MIN), math.log(STEP_MAX)
    step = torch.exp(torch.rand_like(bias) * (high - low) + low).clamp_(min=STEP_FLOOR)
    bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus(bias) == step


@torch.no_grad()
def s4d_real(A_logs: Tensor) -> None:
    """`A_logs (K * D, N)` such that -exp(A_logs) = -1, -2, .., -N for every channel."""
    if A_logs.is_meta:
        return
    states = torch.arange(1, A_logs.shape[-1] + 1, dtype=torch.float32, device=A_logs.device)
    A_logs.copy_(torch.log(states).expand_as(A_logs))
