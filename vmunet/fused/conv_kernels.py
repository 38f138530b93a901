"""Triton kernels of `conv_silu`: the convolution, its gradient to the input, and to the weights.

Channels are contiguous, so a tile is (pixels, channels) and a thread reads several channels of one
pixel at once. The possible width of such an access depends on the common divisor of the sizes and
strides: the constant ALIGN says it. The numbers themselves are arguments: new ones compile nothing.
Each program writes its part of a sum over pixels, and the caller adds the parts: no atomics, so
that results repeat bit for bit.
"""

# A kernel's arguments have no Python types.
# mypy: disallow-incomplete-defs=False

import triton
import triton.language as tl


@triton.jit
def multiple(number, ALIGN: tl.constexpr):
    """The number, a multiple of ALIGN, in a form that shows it (a hint on an argument is lost)."""
    return number // ALIGN * ALIGN


@triton.jit
def _place(tile, h, w, ROWS: tl.constexpr, PIXELS: tl.constexpr):
    """A tile's image, first row and first column; tiles run along the row, then down the image."""
    across, down = tl.cdiv(w, PIXELS), tl.cdiv(h, ROWS)
    image = tile // (across * down)
    return tl.cast(image, tl.int64), tile // across % down * ROWS, tile % across * PIXELS


@triton.jit
def _neighbours(image, i, j, c, h, w, d, row_stride, pixel_stride):
    """Row i of an image at columns j - 1, j and j + 1, (pixels, channels) each, 0 outside."""
    row = image + tl.cast(i, tl.int64) * row_stride
    at = row + j.to(tl.int64)[:, None] * pixel_stride + c[None, :]
    inside = ((i >= 0) & (i < h)) & (c < d)[None, :]
    left = tl.load(at - pixel_stride, inside & ((j > 0) & (j <= w))[:, None], 0.0)
    centre = tl.load(at, inside & (j < w)[:, None], 0.0)
    right = tl.load(at + pixel_stride, inside & (j + 1 < w)[:, None], 0.0)
    return left, centre, right


@triton.jit
def _dot(row, left, centre, right):
    """Three neighbours, times three taps (1, channels)."""
    a, b, c = row
    return a.to(tl.float32) * left + b.to(tl.float32) * centre + c.to(tl.float32) * right


@triton.jit
def _tap(weight, c, d, t):
    """Tap t of 0..8 of every channel, (1, channels) in float32; `weight` is (d, 1, 3, 3)."""
    return tl.load(weight + c * 9 + t, c < d, 0.0).to(tl.float32)[None, :]


_SIZES = ["h", "w", "d", "batch_stride", "row_stride", "pixel_stride"]


@triton.jit(do_not_specialize=_SIZES)
def conv(
    x,
    weight,
    bias,
    y,
    h,
    w,
    d,
    batch_stride,
    row_stride,
    pixel_stride,
    ALIGN: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """y = silu(conv(x) + bias), or if TRANSPOSED the convolution's gradient to its input.

    A program walks down ROWS rows of PIXELS columns: a row of x adds to three rows of y, of which
    two are kept in registers, so that x is loaded three times (from the cache twice), not nine.
    Each row is loaded while the one before is summed: otherwise the stores would delay it.
    """
    d = multiple(d, ALIGN)
    row_stride = multiple(row_stride, ALIGN)
    pixel_stride = multiple(pixel_stride, ALIGN)
    batch_stride = multiple(batch_stride, ALIGN)
    groups = tl.cdiv(d, CHANNELS)
    image, first, column = _place(tl.program_id(0) // groups, h, w, ROWS, PIXELS)
    c = tl.program_id(0) % groups * CHANNELS + tl.arange(0, CHANNELS)
    j = column + tl.arange(0, PIXELS)
    x += image * batch_stride

    # The gradient to the input is a convolution with the taps turned by 180 degrees.
    w0 = _tap(weight, c, d, 8 if TRANSPOSED else 0)
    w1 = _tap(weight, c, d, 7 if TRANSPOSED else 1)
    w2 = _tap(weight, c, d, 6 if TRANSPOSED else 2)
    w3 = _tap(weight, c, d, 5 if TRANSPOSED else 3)
    w4 = _tap(weight, c, d, 4)
    w5 = _tap(weight, c, d, 3 if TRANSPOSED else 5)
    w6 = _tap(weight, c, d, 2 if TRANSPOSED else 6)
    w7 = _tap(weight, c, d, 1 if TRANSPOSED else 7)
    w8 = _tap(weight, c, d, 0 if TRANSPOSED else 8)
    if TRANSPOSED:
        start = tl.zeros((1, CHANNELS), tl.float32)
    else:
        start = tl.load(bias + c, c < d, 0.0).to(tl.float32)[None, :]

    above = tl.zeros((PIXELS, CHANNELS), tl.float32)
    here = tl.zeros((PIXELS, CHANNELS), tl.float32)
    inside = (j < w)[:, None] & (c < d)[None, :]
    end = tl.minimum(first + ROWS, h)
    below = tl.minimum(end + 1, h)
    following = _neighbours(x, first - 1, j, c, below, w, d, row_stride, pixel_stride)
    for i in tl.range(first - 1, end + 1, num_stages=1):  # the row of x; it completes y's i - 1
        row = following
        following = _neighbours(x, i + 1, j, c, below, w, d, row_stride, pixel_stride)
        done = above + _dot(row, w6, w7, w8)
        above = here + _dot(row, w3, w4, w5)
        here = start + _dot(row, w0, w1, w2)
        if i > first:
            if not TRANSPOSED:
                done *= tl.sigmoid(done)
            pixel = ((image * h + (i - 1)) * w + j)[:, None] * d
            tl.store(y + pixel + c[None, :], done, inside)


@triton.jit(do_not_specialize=["tiles", *_SIZES])
def conv_backward(
    gy,
    x,
    weight,
    bias,
    gpre,
    partial,
    tiles,
    h,
    w,
    d,
    batch_stride,
    row_stride,
    pixel_stride,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradient before the activation, and each program's part of the parameters' gradients.

    gy, gpre: (b, h, w, d), contiguous; partial: (programs, 10, d), nine taps and the bias. Program
    (g, p) takes channel group g of the tiles p, p + programs, ...
    """
    d = multiple(d, ALIGN)
    row_stride = multiple(row_stride, ALIGN)
    pixel_stride = multiple(pixel_stride, ALIGN)
    batch_stride = multiple(batch_stride, ALIGN)
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    w0, w1, w2 = _tap(weight, c, d, 0), _tap(weight, c, d, 1), _tap(weight, c, d, 2)
    w3, w4, w5 = _tap(weight, c, d, 3), _tap(weight, c, d, 4), _tap(weight, c, d, 5)
    w6, w7, w8 = _tap(weight, c, d, 6), _tap(weight, c, d, 7), _tap(weight, c, d, 8)
    start = tl.load(bias + c, c < d, 0.0).to(tl.float32)[None, :]
    g0 = tl.zeros((PIXELS, CHANNELS), tl.float32)
    g1, g2, g3, g4, g5, g6, g7, g8, gbias = g0, g0, g0, g0, g0, g0, g0, g0, g0

    for tile in tl.range(tl.program_id(1), tiles, tl.num_programs(1), num_stages=1):
        image, first, column = _place(tile, h, w, ROWS, PIXELS)
        j = column + tl.arange(0, PIXELS)
        inside = (j < w)[:, None] & (c < d)[None, :]
        source = x + image * batch_stride
        end = tl.minimum(first + ROWS, h)
        last = tl.minimum(end + 1, h)
        above = _neighbours(source, first - 1, j, c, last, w, d, row_stride, pixel_stride)
        here = _neighbours(source, first, j, c, last, w, d, row_stride, pixel_stride)
        below = _neighbours(source, first + 1, j, c, last, w, d, row_stride, pixel_stride)
        at = ((image * h + first) * w + j)[:, None] * d + c[None, :]
        gfollowing = tl.load(gy + at, inside, 0.0)
        for i in tl.range(first, end, num_stages=1):
            g = gfollowing.to(tl.float32)
            gfollowing = tl.load(gy + at + w * d, inside & (i + 1 < end), 0.0)
            following = _neighbours(source, i + 2, j, c, last, w, d, row_stride, pixel_stride)
            pre = start + _dot(above, w0, w1, w2) + _dot(here, w3, w4, w5) + _dot(below, w6, w7, w8)
            s = tl.sigmoid(pre)
            g *= s * (1.0 + pre * (1.0 - s))
            tl.store(gpre + at, g, inside)
            g0 += g * above[0].to(tl.float32)
            g1 += g * above[1].to(tl.float32)
            g2 += g * above[2].to(tl.float32)
            g3 += g * here[0].to(tl.float32)
            g4 += g * here[1].to(tl.float32)
            g5 += g * here[2].to(tl.float32)
            g6 += g * below[0].to(tl.float32)
            g7 += g * below[1].to(tl.float32)
            g8 += g * below[2].to(tl.float32)
            gbias += g
            above, here, below = here, below, following
            at += w * d

    at = partial + tl.program_id(1) * 10 * d + c
    tl.store(at, tl.sum(g0, 0), c < d)
    tl.store(at + d, tl.sum(g1, 0), c < d)
    tl.store(at + 2 * d, tl.sum(g2, 0), c < d)
    tl.store(at + 3 * d, tl.sum(g3, 0), c < d)
    tl.store(at + 4 * d, tl.sum(g4, 0), c < d)
    tl.store(at + 5 * d, tl.sum(g5, 0), c < d)
    tl.store(at + 6 * d, tl.sum(g6, 0), c < d)
    tl.store(at + 7 * d, tl.sum(g7, 0), c < d)
    tl.store(at + 8 * d, tl.sum(g8, 0), c < d)
    tl.store(at + 9 * d, tl.sum(gbias, 0), c < d)
