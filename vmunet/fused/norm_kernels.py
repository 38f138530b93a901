"""Triton kernels of `gated_norm`, forward and backward.

A program takes whole pixels, so that y and z are read once. ALIGN and the sums over pixels are as
in `conv_kernels`.
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


@triton.jit(do_not_specialize=["pixels", "d", "y_stride", "z_stride", "eps"])
def norm(
    y,
    z,
    weight,
    bias,
    out,
    mean,
    rstd,
    pixels,
    d,
    y_stride,
    z_stride,
    eps,
    ALIGN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """out = LayerNorm(y) silu(z), and the statistics, for PIXELS pixels of all channels."""
    d = multiple(d, ALIGN)
    y_stride, z_stride = multiple(y_stride, ALIGN), multiple(z_stride, ALIGN)
    first = tl.program_id(0) * PIXELS
    at_y, mask = _tile(y, first, pixels, y_stride, d, PIXELS, CHANNELS)
    at_z, _ = _tile(z, first, pixels, z_stride, d, PIXELS, CHANNELS)
    at_out, _ = _tile(out, first, pixels, d, d, PIXELS, CHANNELS)
    values = tl.load(at_y, mask, 0.0).to(tl.float32)
    gate = tl.load(at_z, mask, 0.0).to(tl.float32)
    c = tl.arange(0, CHANNELS)
    scale = tl.load(weight + c, c < d, 0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + c, c < d, 0.0).to(tl.float32)[None, :]

    m = tl.sum(values, 1) / d
    centred = tl.where((c < d)[None, :], values - m[:, None], 0.0)
    r = tl.rsqrt(tl.sum(centred * centred, 1) / d + eps)
    normed = centred * r[:, None] * scale + shift
    tl.store(at_out, normed * gate * tl.sigmoid(gate), mask)
    p = first + tl.arange(0, PIXELS)
    tl.store(mean + p, m, p < pixels)
    tl.store(rstd + p, r, p < pixels)


@triton.jit(do_not_specialize=["tiles", "pixels", "d", "g_stride", "y_stride", "z_stride"])
def norm_backward(
    gout,
    y,
    z,
    weight,
    bias,
    mean,
    rstd,
    gy,
    gz,
    partial,
    tiles,
    pixels,
    d,
    g_stride,
    y_stride,
    z_stride,
    ALIGN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradients of `norm`; program p takes the tiles p, p + programs, ...

    gy, gz: (pixels, d), contiguous; partial: (programs, 2, d), of the weight and the bias.
    """
    d = multiple(d, ALIGN)
    g_stride = multiple(g_stride, ALIGN)
    y_stride, z_stride = multiple(y_stride, ALIGN), multiple(z_stride, ALIGN)
    c = tl.arange(0, CHANNELS)
    scale = tl.load(weight + c, c < d, 0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + c, c < d, 0.0).to(tl.float32)[None, :]
    gscale = tl.zeros((PIXELS, CHANNELS), tl.float32)
    gshift = tl.zeros((PIXELS, CHANNELS), tl.float32)

    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=1):
        first = tile * PIXELS
        at_g, mask = _tile(gout, first, pixels, g_stride, d, PIXELS, CHANNELS)
        at_y, _ = _tile(y, first, pixels, y_stride, d, PIXELS, CHANNELS)
        at_z, _ = _tile(z, first, pixels, z_stride, d, PIXELS, CHANNELS)
        at_gy, _ = _tile(gy, first, pixels, d, d, PIXELS, CHANNELS)
        at_gz, _ = _tile(gz, first, pixels, d, d, PIXELS, CHANNELS)
        g = tl.load(at_g, mask, 0.0).to(tl.float32)
        values = tl.load(at_y, mask, 0.0).to(tl.float32)
        gate = tl.load(at_z, mask, 0.0).to(tl.float32)
        p = first + tl.arange(0, PIXELS)
        m = tl.load(mean + p, p < pixels, 0.0)[:, None]
        r = tl.load(rstd + p, p < pixels, 0.0)[:, None]

        unit = (values - m) * r
        s = tl.sigmoid(gate)
        tl.store(at_gz, g * (unit * scale + shift) * s * (1.0 + gate * (1.0 - s)), mask)
        g *= gate * s  # now the gradient of the norm's output; 0 outside the mask
        gscale += g * unit
        gshift += g
        g *= scale
        along_one = tl.sum(g, 1)[:, None] / d
        along_unit = tl.sum(g * unit, 1)[:, None] / d
        tl.store(at_gy, r * (g - along_one - unit * along_unit), mask)

    at = partial + tl.program_id(0) * 2 * d + c
    tl.store(at, tl.sum(gscale, 0), c < d)
    tl.store(at + d, tl.sum(gshift, 0), c < d)
