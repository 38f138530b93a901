"""Triton kernels of `gated_norm`, `layer_norm` and `add_layer_norm`, forward and backward.

A program takes whole pixels, so that each image is read once. ALIGN and the sums over pixels are as
in `conv_kernels`. A tensor that an operator does not have is None, and its part is not compiled.
"""

# A kernel's arguments have no Python types.
# mypy: disallow-incomplete-defs=False

import triton
import triton.language as tl

from vmunet.fused.conv_kernels import multiple


@triton.jit
def _tile(image, first, pixels, stride, d, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Pointers to PIXELS whole pixels (a row of the image each) from `first`, and their mask."""
    p, c = tl.arange(0, PIXELS), tl.arange(0, CHANNELS)
    mask = (first + p < pixels)[:, None] & (c < d)[None, :]
    return image + tl.cast(first, tl.int64) * stride + p[:, None] * stride + c[None, :], mask


@triton.jit
def _factors(scale, first, pixels, size, PIXELS: tl.constexpr):
    """Each pixel's factor, (pixels, 1): that of its image, which has `size` pixels."""
    p = first + tl.arange(0, PIXELS)
    return tl.load(scale + p // size, p < pixels, 0.0).to(tl.float32)[:, None]


@triton.jit(do_not_specialize=["pixels", "size", "d", "y_stride", "z_stride", "eps"])
def norm(
    y,
    gate,
    update,
    scale,
    weight,
    bias,
    total,
    out,
    mean,
    rstd,
    pixels,
    size,
    d,
    y_stride,
    z_stride,
    eps,
    ALIGN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """out = LayerNorm(y), and the statistics, for PIXELS pixels of all channels.

    With a gate, out is times silu(gate). With an update, total = y + scale update takes y's place.
    z_stride is the stride of the gate's or the update's pixels.
    """
    d = multiple(d, ALIGN)
    y_stride, z_stride = multiple(y_stride, ALIGN), multiple(z_stride, ALIGN)
    first = tl.program_id(0) * PIXELS
    at_y, mask = _tile(y, first, pixels, y_stride, d, PIXELS, CHANNELS)
    at_out, _ = _tile(out, first, pixels, d, d, PIXELS, CHANNELS)
    values = tl.load(at_y, mask, 0.0).to(tl.float32)
    c = tl.arange(0, CHANNELS)
    gain = tl.load(weight + c, c < d, 0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + c, c < d, 0.0).to(tl.float32)[None, :]
    if update is not None:
        at_update, _ = _tile(update, first, pixels, z_stride, d, PIXELS, CHANNELS)
        at_total, _ = _tile(total, first, pixels, d, d, PIXELS, CHANNELS)
        added = tl.load(at_update, mask, 0.0).to(tl.float32)
        if scale is not None:
            added *= _factors(scale, first, pixels, size, PIXELS)
        rounded = (values + added).to(total.dtype.element_ty)
        tl.store(at_total, rounded, mask)
        values = rounded.to(tl.float32)

    m = tl.sum(values, 1) / d
    centred = tl.where((c < d)[None, :], values - m[:, None], 0.0)
    r = tl.rsqrt(tl.sum(centred * centred, 1) / d + eps)
    normed = centred * r[:, None] * gain + shift
    if gate is not None:
        at_gate, _ = _tile(gate, first, pixels, z_stride, d, PIXELS, CHANNELS)
        g = tl.load(at_gate, mask, 0.0).to(tl.float32)
        normed = normed * g * tl.sigmoid(g)
    tl.store(at_out, normed, mask)
    p = first + tl.arange(0, PIXELS)
    tl.store(mean + p, m, p < pixels)
    tl.store(rstd + p, r, p < pixels)


_STRIDES = ["g_stride", "gtotal_stride", "y_stride", "gate_stride"]


@triton.jit(do_not_specialize=["tiles", "pixels", "size", "d", *_STRIDES])
def norm_backward(
    gout,
    gtotal,
    y,
    gate,
    scale,
    weight,
    bias,
    mean,
    rstd,
    gy,
    ggate,
    gupdate,
    partial,
    tiles,
    pixels,
    size,
    d,
    g_stride,
    gtotal_stride,
    y_stride,
    gate_stride,
    ALIGN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradients of `norm`; program p takes the tiles p, p + programs, ...

    y is what was normed: the total if there was an update. gtotal is the total's own gradient.
    gy, ggate, gupdate: (pixels, d), contiguous; partial: (programs, 2, d), of weight and bias.
    """
    d = multiple(d, ALIGN)
    g_stride, gtotal_stride = multiple(g_stride, ALIGN), multiple(gtotal_stride, ALIGN)
    y_stride, gate_stride = multiple(y_stride, ALIGN), multiple(gate_stride, ALIGN)
    c = tl.arange(0, CHANNELS)
    gain = tl.load(weight + c, c < d, 0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + c, c < d, 0.0).to(tl.float32)[None, :]
    ggain = tl.zeros((PIXELS, CHANNELS), tl.float32)
    gshift = tl.zeros((PIXELS, CHANNELS), tl.float32)

    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=1):
        first = tile * PIXELS
        at_g, mask = _tile(gout, first, pixels, g_stride, d, PIXELS, CHANNELS)
        at_y, _ = _tile(y, first, pixels, y_stride, d, PIXELS, CHANNELS)
        at_gy, _ = _tile(gy, first, pixels, d, d, PIXELS, CHANNELS)
        g = tl.load(at_g, mask, 0.0).to(tl.float32)
        values = tl.load(at_y, mask, 0.0).to(tl.float32)
        p = first + tl.arange(0, PIXELS)
        m = tl.load(mean + p, p < pixels, 0.0)[:, None]
        r = tl.load(rstd + p, p < pixels, 0.0)[:, None]

        unit = (values - m) * r
        if gate is not None:
            at_gate, _ = _tile(gate, first, pixels, gate_stride, d, PIXELS, CHANNELS)
            at_ggate, _ = _tile(ggate, first, pixels, d, d, PIXELS, CHANNELS)
            z = tl.load(at_gate, mask, 0.0).to(tl.float32)
            s = tl.sigmoid(z)
            tl.store(at_ggate, g * (unit * gain + shift) * s * (1.0 + z * (1.0 - s)), mask)
            g *= z * s  # now the gradient of the norm's output; 0 outside the mask
        ggain += g * unit
        gshift += g
        g *= gain
        along_one = tl.sum(g, 1)[:, None] / d
        along_unit = tl.sum(g * unit, 1)[:, None] / d
        g = r * (g - along_one - unit * along_unit)
        if gtotal is not None:
            at_gtotal, _ = _tile(gtotal, first, pixels, gtotal_stride, d, PIXELS, CHANNELS)
            at_gupdate, _ = _tile(gupdate, first, pixels, d, d, PIXELS, CHANNELS)
            g += tl.load(at_gtotal, mask, 0.0).to(tl.float32)
            added = g
            if scale is not None:
                added *= _factors(scale, first, pixels, size, PIXELS)
            tl.store(at_gupdate, added, mask)
        tl.store(at_gy, g, mask)

    at = partial + tl.program_id(0) * 2 * d + c
    tl.store(at, tl.sum(ggain, 0), c < d)
    tl.store(at + d, tl.sum(gshift, 0), c < d)
