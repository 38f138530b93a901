"""The 2D selective scan by mamba-ssm's CUDA scan: VMamba v0 and the published VM-UNet use it.

Written from the paper's Algorithm 1. The image is copied four times, once in the order of each
direction; a scan of one direction runs over all four as `4 d` channels, in float32; and the outputs
are put back into image order and added. It is never chosen by itself.

`backward` scans again: what mamba-ssm keeps for its own backward pass is not part of its interface.

Letters in the shape comments: b batch, h height, w width, l = h w pixels, d channels, n states.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vmunet.scan.reference import unwalk, walk

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""u and delta (b, 4d, l), A (4d, n), B and C (b, 4, n, l), D and delta_bias (4d) -> (b, 4d, l)."""


def unavailable(device: torch.device) -> str:
    """Why the scan cannot run on this device, or an empty string."""
    if cuda_scan() is None:
        return "needs the package mamba-ssm with its CUDA scan, which is not installed"
    return "" if device.type == "cuda" else f"takes CUDA tensors, not {device.type} tensors"


def cuda_scan() -> Scan | None:
    """mamba-ssm's CUDA scan, or None if the package is missing or was built without the scan."""
    try:
        import selective_scan_cuda  # noqa: F401  (the compiled part, which some versions leave out)
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None

    def scan(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
    ) -> Tensor:
        return selective_scan_fn(
            u, delta, A, B, C, D, z=None, delta_bias=delta_bias, delta_softplus=True
        )

    return scan


def saved_shape(x: Tensor, A: Tensor) -> tuple[int, ...]:
    """Shape of the states that `forward` keeps for `backward`: none."""
    return (0,)


@torch.no_grad()
def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """y as `vmunet.scan.ss2d` says, and nothing that `backward` needs, whatever `keep` is."""
    ys = _scan(*_sequences(x, dt, A, B, C, D, dt_bias))  # (b, 4d, l)
    return _merged(ys, x).contiguous(), x.new_empty(0, dtype=torch.float32)


def backward(
    gy: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    saved: Tensor,
) -> tuple[Tensor, ...]:
    """The gradients of the seven inputs, each in the type of its input."""
    inputs = (x, dt, A, B, C, D, dt_bias)
    leaves = [sequence.detach().requires_grad_() for sequence in _sequences(*inputs)]
    with torch.enable_grad():
        ys = _scan(*leaves)
    gys = cross_scan(gy.float().permute(0, 3, 1, 2)).flatten(1, 2)  # (b, 4d, l)
    gu, gdelta, gA, gB, gC, gD, gbias = torch.autograd.grad(ys, leaves, gys)
    gradients = (
        _merged(gu, x),
        _in_image_order(gdelta.unflatten(1, (4, -1)), x),
        gA.view(A.shape),
        _in_image_order(gB, x),
        _in_image_order(gC, x),
        gD.view(D.shape),
        gbias.view(D.shape),
    )
    return tuple(g.to(tensor.dtype) for g, tensor in zip(gradients, inputs, strict=True))


def cross_scan(x: Tensor) -> Tensor:
    """Four copies of an image, each in its direction's order: (b, d, h, w) -> (b, 4, d, l)."""
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    onward = torch.stack((rows, columns), dim=1)  # (b, 2, d, l)
    return torch.cat((onward, onward.flip(-1)), dim=1)


def cross_merge(ys: Tensor, height: int, width: int) -> Tensor:
    """Put the four outputs back into image order and add them: (b, 4, d, l) -> (b, d, l)."""
    back = ys[:, 2:].flip(-1)  # (b, 2, d, l)

    def by_row(columns: Tensor) -> Tensor:
        image = columns.unflatten(-1, (width, height)).transpose(2, 3).contiguous()
        return image.flatten(2)  # (b, d, l)

    return ys[:, 0] + back[:, 0] + by_row(ys[:, 1]) + by_row(back[:, 1])


def in_time_order(maps: Tensor) -> Tensor:
    """Each direction's map in the order of its walk: (b, h, w, 4, c) -> (b, 4, c, l)."""
    return walk(maps).permute(1, 2, 3, 0).contiguous()


def _in_image_order(sequences: Tensor, x: Tensor) -> Tensor:
    """The inverse of `in_time_order`, for maps of the size of x."""
    return unwalk(sequences.permute(3, 0, 1, 2), *x.shape[1:3])


def _merged(ys: Tensor, x: Tensor) -> Tensor:
    """(b, 4d, l) -> their sum (b, h, w, d), in the type of x."""
    height, width = x.shape[1:3]
    merged = cross_merge(ys.unflatten(1, (4, -1)), height, width)  # (b, d, l)
    return merged.transpose(1, 2).unflatten(1, (height, width)).to(x.dtype)


def _sequences(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor
) -> tuple[Tensor, ...]:
    """The arguments of `Scan`, in float32."""
    copies = cross_scan(x.float().permute(0, 3, 1, 2))
    delta, B, C = (in_time_order(maps.float()) for maps in (dt, B, C))
    parameters = (parameter.float().flatten() for parameter in (D, dt_bias))
    return copies.flatten(1, 2), delta.flatten(1, 2), A.float().flatten(0, 1), B, C, *parameters


def _scan(*sequences: Tensor) -> Tensor:
    scan = cuda_scan()
    assert scan is not None  # `unavailable` said so
    return scan(*sequences)
