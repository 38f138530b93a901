"""The 2D selective scan in plain PyTorch: the definition that every other backend must equal.

One step of the loop is one pixel of every image and direction at once. exp(delta A) is computed
inside the loop: before the loop it would take `states` times the input's memory, and more time.

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
    batch, height, width, _ = x.shape
    state_type = torch.float32
    for tensor in (x, dt, A, B, C, D, dt_bias):
        state_type = torch.promote_types(state_type, tensor.dtype)

    with torch.autocast(x.device.type, enabled=False):
        A, D, dt_bias = A.to(state_type), D.to(state_type), dt_bias.to(state_type)
        u = walk(x.to(state_type).unsqueeze(3).expand(-1, -1, -1, 4, -1))  # (l, b, 4, d)
        delta = F.softplus(walk(dt.to(state_type)) + dt_bias)  # (l, b, 4, d)
        B = walk(B.to(state_type))  # (l, b, 4, n)
        C = walk(C.to(state_type))  # (l, b, 4, n)

        A = A.repeat(batch, 1, 1)  # (4 b, d, n)
        y = selective_scan(
            u.flatten(1, 2), delta.flatten(1, 2), A, B.flatten(1, 2), C.flatten(1, 2)
        ).unflatten(1, (batch, 4))  # (l, b, 4, d)
        return unwalk(y + D * u, height, width).sum(3).to(x.dtype)  # (b, h, w, d)


def selective_scan(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t . h_t, for r sequences at once.

    u and delta (l, r, d), A (r, d, n), B and C (l, r, n) -> y (l, r, d).
    """
    A = A.transpose(1, 2).contiguous()  # (r, n, d)

    def step(
        state: torch.Tensor, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        delta_t, input_t, B_t, C_t = inputs
        decay = torch.exp(delta_t * A)  # (r, 1, d) (r, n, d) -> (r, n, d)
        state = torch.addcmul(B_t * input_t, decay, state)  # (r, n, 1) (r, 1, d) + (r, n, d)
        return state, torch.bmm(C_t, state).squeeze(1)  # (r, 1, n) (r, n, d) -> (r, d)

    state = torch.zeros_like(A)
    steps = (delta.unsqueeze(2), (delta * u).unsqueeze(2), B.unsqueeze(3), C.unsqueeze(2))
    if torch.compiler.is_exporting():  # the graph holds one loop, not thousands of steps
        from torch._higher_order_ops.scan import scan

        return scan(step, state, steps)[1]
    outputs = []
    for inputs in zip(*(sequence.unbind(0) for sequence in steps), strict=True):
        state, output = step(state, inputs)
        outputs.append(output)
    return torch.stack(outputs)  # (l, r, d)


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
