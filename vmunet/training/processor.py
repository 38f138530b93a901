"""How PyTorch uses the processor: threads, and the faster of its two float32 matrix products."""

import os

import torch

from vmunet.errors import InputError

CEILING = "VMUNET_THREADS"  # environment variable
TOLERANCE = 1e-5  # of the largest value; float32 products are within 2e-6, bfloat16 ones at 4e-3


def use_processor(threads: int = 0) -> None:
    """Set the number of threads (0 keeps torch's choice) and switch to oneDNN's matrix product.

    `VMUNET_THREADS`, a process's share of the cores if several run in parallel, is a ceiling.

    PyTorch multiplies float32 matrices with MKL, which reaches half of the speed of oneDNN on AMD
    processors (a training step takes 1.25 s instead of 0.85 s). The only switch to oneDNN is
    the permission to use bfloat16, which its kernels use only if the processor multiplies
    bfloat16 tiles. So a product is checked, and if it is not exact to float32, the permission
    is withdrawn.

    Raises:
        InputError: VMUNET_THREADS is set, but not to a whole number.
    """
    if share := threads_allowed():
        threads = min(threads or torch.get_num_threads(), share)
    if threads:
        torch.set_num_threads(threads)
    if not torch.backends.mkldnn.is_available():
        return
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if _error_of_products() > TOLERANCE:
        matmul.fp32_precision = before


def threads_allowed() -> int:
    """The number in VMUNET_THREADS, 0 (no ceiling) if it is unset or empty.

    Raises:
        InputError: it is not a whole number.
    """
    text = os.environ.get(CEILING, "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise InputError(
            f"{CEILING}={text}: expected a whole number of threads; leave it unset for all cores"
        )
    return int(text)


def _error_of_products() -> float:
    """Largest error of float32 products in the shapes of a narrow and a wide layer."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, inner, columns in ((2048, 64, 128), (256, 768, 256)):
        a = torch.randn(rows, inner, generator=generator)
        b = torch.randn(inner, columns, generator=generator)
        exact = a.double() @ b.double()
        worst = max(worst, ((a @ b - exact).abs().max() / exact.abs().max()).item())
    return worst
