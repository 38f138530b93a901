"""The sums that a GPU scan leaves, as Triton kernels: over walks, tiles, images and segments.

Programs of a scan write their parts side by side instead of adding with atomics. Here they are
added in a fixed order, so that the same input gives the same bits.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

BLOCK = 1024  # values of a program
AT_ONCE = tl.constexpr(4)  # rows whose loads are on their way together; an image has 4 walks


@triton.jit
def _add_rows(block, parts, whole, rows, size, BLOCK: tl.constexpr):
    """Block `block` of `whole`, the sum of the rows of `parts`, (rows, size).

    A block that does not lie in `whole` does nothing. Returns its number after those of `whole`.
    """
    blocks = tl.cdiv(size, BLOCK)
    if (block >= 0) & (block < blocks):
        at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        total = tl.zeros([BLOCK], tl.float32)
        for first in tl.range(0, rows, AT_ONCE, num_stages=1):
            for i in tl.static_range(AT_ONCE):
                row = first + i
                mask = (at < size) & (row < rows)
                total += tl.load(parts + tl.cast(row, tl.int64) * size + at, mask=mask, other=0.0)
        tl.store(whole + at, total.to(whole.dtype.element_ty), mask=at < size)
    return block - blocks


@triton.jit(do_not_specialize=["rows"])
def merge_kernel(parts, whole, rows, size, BLOCK: tl.constexpr):
    """whole = the sum of `rows` consecutive tensors of `size` values, in its own type."""
    _add_rows(tl.program_id(0), parts, whole, rows, size, BLOCK)


@triton.jit(do_not_specialize=["rows_A", "rows_D", "tiles"])
def finish_kernel(
    gD_parts,  # (rows_D, k d), as the rows of the other parts: see `backward_kernel`
    gbias_parts,
    gA_parts,
    gB_parts,
    gC_parts,
    gx_parts,
    gD,
    gbias,
    gA,
    gB,
    gC,
    gx,
    rows_D,  # of the parts of D and of dt_bias: images times segments
    rows_A,
    tiles,  # rows of the parts of B and C
    size_D,  # k d
    size_A,  # k d n
    size_B,  # b l k n
    size_x,  # b l d
    BLOCK: tl.constexpr,
):
    """Every sum that the backward pass leaves. A program has one block of one of the gradients.

    The small ones come first: they have the most rows, and the large ones hide how long those take.
    """
    block = tl.program_id(0)
    block = _add_rows(block, gD_parts, gD, rows_D, size_D, BLOCK)
    block = _add_rows(block, gbias_parts, gbias, rows_D, size_D, BLOCK)
    block = _add_rows(block, gA_parts, gA, rows_A, size_A, BLOCK)
    block = _add_rows(block, gB_parts, gB, tiles, size_B, BLOCK)
    block = _add_rows(block, gC_parts, gC, tiles, size_B, BLOCK)
    _add_rows(block, gx_parts, gx, 4, size_x, BLOCK)
