"""SS2D as VMamba v0 and the published VM-UNet compute it, for comparisons.

The copies, the CUDA scan and the merge are those of the backend `mamba` (`vmunet/scan/mamba.py`).
Here the projections to delta, B and C are made from the copies too, and autograd keeps what the
CUDA scan saves, where the backend scans again. If mamba-ssm is not installed, there is
`reference_scan` for tests: it is correct, and its speed says nothing.

Letters in the shape comments: b batch, h height, w width, l = h w pixels, d channels, n states,
r rank of delta.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmunet.model import SS2D, K, LayerNorm, VMUNet, VSSBlock
from vmunet.scan.mamba import Scan, cross_merge, cross_scan
from vmunet.scan.reference import selective_scan


def reference_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """The same function as the CUDA scan, computed by the loop in plain PyTorch that defines it."""
    batch = u.shape[0]

    def walk(sequences: Tensor) -> Tensor:
        return sequences.permute(3, 0, 1, 2).flatten(1, 2)  # (b, 4, c, l) -> (l, 4 b, c)

    with torch.autocast(u.device.type, enabled=False):
        A, D, delta_bias = (tensor.to(u.dtype) for tensor in (A, D, delta_bias))
        step = F.softplus(delta + delta_bias[:, None])  # (b, 4d, l)
        decay = A.unflatten(0, (K, -1)).repeat(batch, 1, 1)  # (4 b, d, n)
        y = selective_scan(
            walk(u.unflatten(1, (K, -1))),
            walk(step.unflatten(1, (K, -1))),
            decay,
            walk(B),
            walk(C),
        )  # (l, 4 b, d)
        y = y.unflatten(1, (batch, K)).permute(1, 2, 3, 0).flatten(1, 2)  # (b, 4d, l)
        return y + D[:, None] * u


def scan_copies(
    copies: Tensor,
    dts: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    scan: Scan,
) -> Tensor:
    """Scan every direction's copy in float32 (float64 for float64), as the published code does.

    copies and dts (b, 4, d, l), A (4d, n), B and C (b, 4, n, l), D and dt_bias (4d)
    -> (b, 4, d, l).
    """
    wide = torch.promote_types(copies.dtype, torch.float32)
    u = copies.to(wide).flatten(1, 2)  # (b, 4d, l)
    delta = dts.contiguous().to(wide).flatten(1, 2)  # (b, 4d, l)
    return scan(u, delta, A, B.to(wide), C.to(wide), D, dt_bias).unflatten(1, (K, -1))


class PublishedSS2D(SS2D):
    """`SS2D` with the published order of computation; same parameters, same result."""

    scan: Scan

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, d) -> (b, h, w, d)."""
        b, h, w, _ = x.shape
        D, N, R = self.d_inner, self.d_state, self.dt_rank
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (b, h, w, D) each
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2).contiguous()))  # (b, D, h, w)

        copies = cross_scan(x)  # (b, 4, D, l)
        projected = torch.einsum("bkdl,kcd->bkcl", copies, self.x_proj_weight)
        step, B, C = projected.split([R, N, N], dim=2)
        dts = torch.einsum("bkrl,kdr->bkdl", step, self.dt_projs_weight)  # (b, 4, D, l)

        A = -torch.exp(self.A_logs.float())  # (4 D, N)
        bias = self.dt_projs_bias.float().flatten()
        ys = scan_copies(copies, dts, A, B, C, self.Ds.float(), bias, self.scan)
        y = cross_merge(ys, h, w).transpose(1, 2).contiguous().view(b, h, w, D)
        return self.out_proj(self.out_norm(y) * F.silu(z))


class PublishedVSSBlock(VSSBlock):
    """`VSSBlock` that adds its update itself."""

    def forward(self, x: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        return x + self.drop_path(self.self_attention(self.ln_1(x))), None, None


class PublishedVMUNet(VMUNet):
    """`VMUNet` with blocks and norms that compute as the published ones; all else is VMUNet's.

    To share another model's parameters themselves, not only their values:
    `published.load_state_dict(model.state_dict(keep_vars=True), assign=True)`.

    Args:
        scan: the function that scans one direction.
        config: the arguments of `VMUNet`.
    """

    def __init__(self, scan: Scan = reference_scan, **config: Any) -> None:
        super().__init__(**config)
        replacements = {SS2D: PublishedSS2D, VSSBlock: PublishedVSSBlock, LayerNorm: nn.LayerNorm}
        for module in self.modules():
            # Names, shapes and initial values stay: only `forward` is replaced.
            module.__class__ = replacements.get(type(module), type(module))
            if isinstance(module, PublishedSS2D):
                module.scan = scan
