"""The 2D selective scan in plain PyTorch: the definition that every other backend must equal.

One step of the loop is one pixel of every direction at once. exp(delta A) is formed inside the
loop: formed ahead it would take `states` times the memory of the input, and be slower for it.

Letters in the shape comments: b batch, h height, w width, d channels, n states, l = h w pixels.
"""

import torch
import torch.nn.functional as F


def ss2d(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
) -> torch.Tensor:
    """`vmunet.scan.ss2d` for any device and floating-point type, differentiable by autograd."""
    height, width = x.shape[1:3]
    state_type = torch.float32
    for tensor in (x, dt, A, B, C, D, dt_bias):
        state_type = torch.promote_types(state_type, tensor.dtype)

    with torch.autocast(x.device.type, enabled=False):
        A, D, dt_bias = A.to(state_type), D.to(state_type), dt_bias.to(state_type)
        u = walk(x.to(state_type).unsqueeze(3).expand(-1, -1, -1, 4, -1))  # (l, b, 4, d)
        delta = F.softplus(walk(dt.to(state_type)) + dt_bias)  # (l, b, 4, d)
        B = walk(B.to(state_type))  # (l, b, 4, n)
        C = walk(C.to(state_type))  # (l, b, 4, n)
        y = selective_scan(u, delta, A, B, C) + D * u  # (l, b, 4, d)
        return unwalk(y, height, width).sum(3).to(x.dtype)  # (b, h, w, d)


def selective_scan(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t; returns C_t . h_t, with time first.

    u and delta (l, b, 4, d), A (4, d, n), B and C (l, b, 4, n) -> (l, b, 4, d).
    """
    state = torch.zeros((), dtype=u.dtype, device=u.device)
    outputs = []
    steps = (delta.unsqueeze(-1), (delta * u).unsqueeze(-1), B.unsqueeze(-2), C.unsqueeze(-1))
    for delta_t, input_t, B_t, C_t in zip(*(sequence.unbind(0) for sequence in steps), strict=True):
        decay = torch.exp(delta_t * A)  # (b, 4, d, 1) (4, d, n) -> (b, 4, d, n)
        state = decay * state + input_t * B_t  # (b, 4, d, n) + (b, 4, d, 1) (b, 4, 1, n)
        outputs.append((state @ C_t).squeeze(-1))  # (b, 4, d, n) (b, 4, n, 1) -> (b, 4, d)
    return torch.stack(outputs)  # (l, b, 4, d)


def walk(image: torch.Tensor) -> torch.Tensor:
    """Order each direction's pixels in time: (b, h, w, 4, c) -> (l, b, 4, c)."""
    rows = image.flatten(1, 2)  # (b, l, 4, c)
    columns = image.transpose(1, 2).flatten(1, 2)  # (b, l, 4, c)
    directions = (
        rows[:, :, 0],
        columns[:, :, 1],
        rows[:, :, 2].flip(1),
        columns[:, :, 3].flip(1),
    )  # each (b, l, c)
    return torch.stack(directions, dim=2).transpose(0, 1).contiguous()


def unwalk(sequence: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `walk`: (l, b, 4, c) -> (b, h, w, 4, c)."""
    rows, columns, rows_back, columns_back = sequence.transpose(0, 1).unbind(2)  # each (b, l, c)
    by_row, by_column = (1, (height, width)), (1, (width, height))
    directions = (
        rows.unflatten(*by_row),
        columns.unflatten(*by_column).transpose(1, 2),
        rows_back.flip(1).unflatten(*by_row),
        columns_back.flip(1).unflatten(*by_column).transpose(1, 2),
    )  # each (b, h, w, c)
    return torch.stack(directions, dim=3)
