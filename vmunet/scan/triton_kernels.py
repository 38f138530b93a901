"""The 2D selective scan as Triton kernels: the arithmetic of `vmunet.scan.triton`.

One program is one warp. It follows one walk (direction) of one image for a tile of CH * LD
channels, in chunks of T steps: a chunk is a tensor [T, CH, N, LD] of steps, channels and states.
Triton spreads the last axes over the lanes of the warp and keeps the first ones in registers, so
that 32 / LD lanes share the states of a channel and a scan along T stays inside a lane: it is the
plain chain of multiply-adds that the recurrence says, while the loads and the exponentials of T
steps are independent of each other.

What bounds the scan is the exponential, 16 for each pixel, walk and channel. Everything else is
kept below its cost:

- Nothing is copied to walk an image by columns or backwards: a step is mapped to its pixel.
- Integers are passed unspecialised. A stride that Triton knows to be a multiple of 16 makes it
  spread four channels over every lane, and the states over more lanes, which costs shuffles.
- A sum over lanes by shuffles takes two instructions for each halving and value. `fold` sends the
  values through shared memory once instead, and a lane then adds what it holds.

The forward pass then takes about as many issue slots (8.7 on sm_90) as the special-function units
take cycles for its exponentials (8.5): computing a part of them by a polynomial on the other units
would cost more slots than it frees. The backward pass takes 31.

Letters in the shapes: b image, k walk, l pixels, d channels, n states, s segments of a walk.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
WARP = tl.constexpr(32)
MAPS = ("x", "dt", "gdt", "b", "c", "gy", "y", "signal", "matrix")
INTEGERS = {f"{name}_{axis}" for name in MAPS for axis in ("image", "pixel", "walk")}
INTEGERS |= {
    "a_channel",
    "a_state",
    "batch",
    "height",
    "width",
    "channels",
    "states",
    "segments",
    "share",
    "reciprocal",
}


@triton.jit
def softplus(v):
    """softplus(v), and exp(-|v|).

    log1p(z) / z is a polynomial on [0, 1] (relative error 1e-7): log(1 + z) itself would lose a
    small z, which a small time step is.
    """
    z = tl.exp2(-tl.abs(v) * LOG2_E)
    q = z * 0.00510582561 - 0.0289919563
    q = q * z + 0.0773807392
    q = q * z - 0.135905996
    q = q * z + 0.190713093
    q = q * z - 0.248339459
    q = q * z + 0.333179355
    q = q * z - 0.499994367
    q = q * z + 0.99999994
    return tl.maximum(v, 0.0) + z * q, z


@triton.jit
def _step(decay_1, fed_1, decay_2, fed_2):
    """(decay, fed) is the map h -> decay h + fed; this joins two maps, the first one first."""
    return decay_2 * decay_1, decay_2 * fed_1 + fed_2


@triton.jit
def _step_back(decay_1, rest_1, pull_1, decay_2, rest_2, pull_2):
    """G(t) = pull(t) + decay(t+1) G(t+1), walking down: a step's factor is that of the next one.

    `rest` is the product of the factors that an interval has yet to apply; it is 1 for a step.
    """
    return decay_2, rest_2 * decay_1 * rest_1, rest_2 * decay_1 * pull_1 + pull_2


@triton.jit
def _pixel(walk, t, height, width, reciprocal):
    """The row-major index of the pixel that a walk visits at step t; any outside steps 0..l-1.

    `reciprocal` is 2**32 / height rounded up: a division by height is the high half of a product,
    exact as long as steps * height < 2**32.
    """
    pixels = height * width
    t = tl.where(walk >= 2, pixels - 1 - t, t)
    column = tl.umulhi(t.to(tl.uint32), reciprocal.to(tl.uint32, bitcast=True)).to(tl.int32)
    by_columns = (walk % 2 == 1) & (height > 1)
    return tl.where(by_columns, t * width - column * (pixels - 1), t)


@triton.jit
def fold(p):
    """Sums over the last axis of [rows, 2**i], which lies across lanes.

    Splitting that axis asks for its two halves in one lane: Triton moves the tensor once, through
    shared memory, to where all of the axis lies in a lane.
    """
    if p.shape[1] == 1:
        return tl.reshape(p, [p.shape[0]])
    else:
        even, odd = tl.split(tl.reshape(p, [p.shape[0], p.shape[1] // 2, 2]))
        return fold(even + odd)


@triton.jit
def _sum_channels(p, T: tl.constexpr, N: tl.constexpr, LD: tl.constexpr):
    """[T, CH, N, LD] -> [T, N]."""
    return tl.reshape(fold(tl.reshape(tl.sum(p, 1), [T * N, LD])), [T, N])


@triton.jit
def _sum_states(p, T: tl.constexpr, CH: tl.constexpr, N: tl.constexpr, LD: tl.constexpr):
    """[T, CH, N, LD] -> [T, CH, LD]."""
    ACROSS: tl.constexpr = min(N, WARP // LD)  # lanes that share a channel's states
    p = tl.sum(tl.reshape(p, [T, CH, N // ACROSS, ACROSS, LD]), 2)
    p = tl.permute(p, [0, 1, 3, 2])
    return tl.reshape(fold(tl.reshape(p, [T * CH * LD, ACROSS])), [T, CH, LD])


@triton.jit
def read_each(values, at, real):
    """D or dt_bias of a tile's channels, (CH, LD)."""
    return tl.load(values + at, mask=real, other=0.0).to(tl.float32)


@triton.jit
def rate_at(channel, n, a_channel, a_state):
    """Where A holds the states of a tile's channels, (CH, N, LD).

    The stride of a state is 1, but Triton must not know that: it would lay all that is multiplied
    by A across lanes by states, and convert it, or compute it twice.
    """
    return channel[:, None, :] * a_channel + n[None, :, None] * a_state


@triton.jit
def read_rate(A, at, kept):
    """A log2(e), at `rate_at`."""
    return tl.load(A + at, mask=kept, other=0.0).to(tl.float32) * LOG2_E


@triton.jit
def _read_map(values, pixel, channel, stride, mask):
    """x, dt or the gradient of y at a chunk's pixels, (T, CH, LD)."""
    at = pixel[:, None, None] * stride + channel[None]
    return tl.load(values + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _read_step(x, dt, pixel, channel, x_pixel, dt_pixel, mask):
    """x and dt of a chunk's pixels, (T, CH, LD)."""
    u = _read_map(x, pixel, channel, x_pixel, mask)
    return u, _read_map(dt, pixel, channel, dt_pixel, mask)


@triton.jit
def _read_states(matrix, pixel, stride, n, states, on):
    """B or C of a chunk's pixels, (T, N)."""
    mask = on[:, None] & (n < states)[None]
    rows = tl.load(matrix + pixel[:, None] * stride + n[None], mask=mask, other=0.0)
    return rows.to(tl.float32)


def scan_kernel(*specialised: str):
    """A Triton kernel with the integer arguments unspecialised, except those that are named.

    So it is compiled once for all image sizes, batches and strides. If strides are named, it is
    compiled twice: for channels in multiples of 16, whose rows move 16 bytes at a time, and others.
    """

    def decorate(function):
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        plain = [name for name in names if name in INTEGERS and name not in specialised]
        return triton.jit(do_not_specialize=plain)(function)

    return decorate


@scan_kernel("x_image", "x_pixel", "dt_image", "dt_pixel", "dt_walk", "y_pixel")
def forward_kernel(
    x,  # (b, l, d), strides x_image, x_pixel
    dt,  # (b, l, k, d), before softplus
    A,  # (k, d, n), strides a_channel, a_state
    B,  # (b, l, k, n)
    C,  # (b, l, k, n)
    skip,  # (k, d)
    bias,  # (k, d)
    y,  # (k, b, l, d): every walk's output
    saved,  # (b, k, ceil(l / SPAN), n, d): the state before every SPAN-th step
    ends,  # (b, k, s, n, d) and
    totals,  # (b, k, s, d): see summary_kernel
    batch,
    height,
    width,
    channels,
    states,
    segments,
    share,  # steps of a segment, a multiple of SPAN
    reciprocal,
    a_channel,
    a_state,
    x_image,
    x_pixel,
    dt_image,
    dt_pixel,
    dt_walk,
    b_image,
    b_pixel,
    b_walk,
    c_image,
    c_pixel,
    c_walk,
    y_pixel,
    KEEP: tl.constexpr,
    SPAN: tl.constexpr,
    T: tl.constexpr,
    CH: tl.constexpr,
    N: tl.constexpr,
    LD: tl.constexpr,
):
    """The output of one walk, for a tile of channels: grid (tiles, b, k * segments)."""
    pixels = height * width
    image = tl.program_id(1).to(tl.int64)
    walk = tl.program_id(2) // segments
    segment = tl.program_id(2) % segments
    channel = tl.program_id(0) * (CH * LD) + tl.arange(0, CH)[:, None] * LD + tl.arange(0, LD)
    n = tl.arange(0, N)
    step = tl.arange(0, T)
    real = channel < channels
    kept = real[:, None, :] & (n < states)[None, :, None]
    state_at = n[None, :, None] * channels + channel[:, None, :]
    x += image * x_image
    dt += image * dt_image + walk.to(tl.int64) * dt_walk
    B += image * b_image + walk.to(tl.int64) * b_walk
    C += image * c_image + walk.to(tl.int64) * c_walk
    y += (walk * batch + image) * pixels * y_pixel
    slot = image * 4 + walk
    saved += slot * tl.cdiv(pixels, SPAN) * states * channels

    A += walk * channels * states
    a = read_rate(A, rate_at(channel, n, a_channel, a_state), kept)
    d = read_each(skip, walk * channels + channel, real)
    shift = read_each(bias, walk * channels + channel, real)
    h = tl.zeros([CH, N, LD], tl.float32)
    for before in range(segment):
        at = slot * segments + before
        total = tl.load(totals + at * channels + channel, mask=real, other=0.0)
        end = tl.load(ends + at * states * channels + state_at, mask=kept, other=0.0)
        h = tl.exp2(total[:, None, :] * a) * h + end

    begin = segment * share
    t = begin + step
    pixel = _pixel(walk, t, height, width, reciprocal)
    here = (t < pixels)[:, None, None] & real[None]
    u, v = _read_step(x, dt, pixel, channel, x_pixel, dt_pixel, here)
    b = _read_states(B, pixel, b_pixel, n, states, t < pixels)
    c = _read_states(C, pixel, c_pixel, n, states, t < pixels)
    for start in tl.range(begin, tl.minimum(begin + share, pixels), T, num_stages=1):
        # The next chunk is on its way while this one is computed.
        t = start + T + step
        pixel_next = _pixel(walk, t, height, width, reciprocal)
        here_next = (t < pixels)[:, None, None] & real[None]
        u_next, v_next = _read_step(x, dt, pixel_next, channel, x_pixel, dt_pixel, here_next)
        b_next = _read_states(B, pixel_next, b_pixel, n, states, t < pixels)
        c_next = _read_states(C, pixel_next, c_pixel, n, states, t < pixels)

        if KEEP:  # noqa: SIM102 (one is decided when the kernel is compiled)
            if start % SPAN == 0:
                at = (start // SPAN) * states * channels
                tl.store(saved + at + state_at, h, mask=kept)
        delta, _ = softplus(v + shift[None])
        delta = tl.where(here, delta, 0.0)  # a step past the end leaves the state alone
        decay = tl.exp2(delta[:, :, None, :] * a[None])
        fed = (delta * u)[:, :, None, :] * b[:, None, :, None]
        fed = tl.where((step == 0)[:, None, None, None], decay * h[None] + fed, fed)
        _, hs = tl.associative_scan((decay, fed), 0, _step)
        h = tl.sum(tl.where((step == T - 1)[:, None, None, None], hs, 0.0), 0)
        out = tl.sum(hs * c[:, None, :, None], 2) + d[None] * u
        tl.store(y + pixel[:, None, None] * y_pixel + channel[None], out, mask=here)
        u, v, b, c, pixel, here = u_next, v_next, b_next, c_next, pixel_next, here_next


@scan_kernel()
def summary_kernel(
    signal,  # (b, l, d): x, or with BACK the gradient of y; strides signal_image, signal_pixel
    dt,  # (b, l, k, d)
    A,  # (k, d, n), strides a_channel, a_state
    matrix,  # (b, l, k, n): B, or with BACK C
    bias,  # (k, d)
    ends,  # (b, k, s, n, d): the state that a segment ends with when it starts from zero
    totals,  # (b, k, s, d): the sum of its time steps
    height,
    width,
    channels,
    states,
    segments,
    share,
    reciprocal,
    a_channel,
    a_state,
    signal_image,
    signal_pixel,
    dt_image,
    dt_pixel,
    dt_walk,
    matrix_image,
    matrix_pixel,
    matrix_walk,
    BACK: tl.constexpr,
    T: tl.constexpr,
    CH: tl.constexpr,
    N: tl.constexpr,
    LD: tl.constexpr,
):
    """Every segment of a walk by itself, so that all of them can then start with the right state.

    A segment multiplies the state it starts with by exp(A total), and adds its end. With BACK it
    runs from its last step to its first, and the state is decay(t) G(t), see backward_kernel.
    Grid (tiles, b, k * segments).
    """
    pixels = height * width
    image = tl.program_id(1).to(tl.int64)
    walk = tl.program_id(2) // segments
    segment = tl.program_id(2) % segments
    channel = tl.program_id(0) * (CH * LD) + tl.arange(0, CH)[:, None] * LD + tl.arange(0, LD)
    n = tl.arange(0, N)
    step = tl.arange(0, T)
    real = channel < channels
    kept = real[:, None, :] & (n < states)[None, :, None]
    state_at = n[None, :, None] * channels + channel[:, None, :]
    signal += image * signal_image
    dt += image * dt_image + walk.to(tl.int64) * dt_walk
    matrix += image * matrix_image + walk.to(tl.int64) * matrix_walk
    A += walk * channels * states
    a = read_rate(A, rate_at(channel, n, a_channel, a_state), kept)
    shift = read_each(bias, walk * channels + channel, real)
    h = tl.zeros([CH, N, LD], tl.float32)
    total = tl.zeros([CH, LD], tl.float32)
    first = segment * share
    after = tl.minimum(first + share, pixels)
    for done in tl.range(0, after - first, T, num_stages=1):
        t = after - 1 - done - step if BACK else first + done + step
        on = (t >= first) & (t < after)
        pixel = _pixel(walk, t, height, width, reciprocal)
        here = on[:, None, None] & real[None]
        u, v = _read_step(signal, dt, pixel, channel, signal_pixel, dt_pixel, here)
        b = _read_states(matrix, pixel, matrix_pixel, n, states, on)
        delta, _ = softplus(v + shift[None])
        delta = tl.where(here, delta, 0.0)
        decay = tl.exp2(delta[:, :, None, :] * a[None])
        if BACK:
            fed = decay * (u[:, :, None, :] * b[:, None, :, None])
        else:
            fed = (delta * u)[:, :, None, :] * b[:, None, :, None]
        fed = tl.where((step == 0)[:, None, None, None], decay * h[None] + fed, fed)
        _, hs = tl.associative_scan((decay, fed), 0, _step)
        h = tl.sum(tl.where((step == T - 1)[:, None, None, None], hs, 0.0), 0)
        total += tl.sum(delta, 0)
    slot = (image * 4 + walk) * segments + segment
    tl.store(ends + slot * states * channels + state_at, h, mask=kept)
    tl.store(totals + slot * channels + channel, total, mask=real)


@scan_kernel()
def backward_kernel(
    x,  # (b, l, d), strides x_image, x_pixel
    dt,  # (b, l, k, d)
    A,  # (k, d, n), strides a_channel, a_state
    B,  # (b, l, k, n)
    C,  # (b, l, k, n)
    skip,  # (k, d)
    bias,  # (k, d)
    gy,  # (b, l, d), strides gy_image, gy_pixel
    saved,  # (b, k, ceil(l / SPAN), n, d)
    ends,  # (b, k, s, n, d) and
    totals,  # (b, k, s, d): summary_kernel's, with BACK
    gx,  # (k, b, l, d): every walk's part
    gdt,  # like dt, with its strides
    gA,  # (b, s, k, d, n): partial sums
    gB,  # (tiles, b, l, k, n): partial sums
    gC,  # the same
    gskip,  # (b, s, k, d): partial sums
    gbias,  # (b, s, k, d): partial sums
    scratch,  # (programs, SPAN / T, n, CH * LD): states at the chunks of a span
    batch,
    height,
    width,
    channels,
    states,
    segments,
    share,
    reciprocal,
    a_channel,
    a_state,
    x_image,
    x_pixel,
    dt_image,
    dt_pixel,
    dt_walk,
    b_image,
    b_pixel,
    b_walk,
    c_image,
    c_pixel,
    c_walk,
    gy_image,
    gy_pixel,
    gdt_image,
    gdt_pixel,
    gdt_walk,
    SPAN: tl.constexpr,
    T: tl.constexpr,
    CH: tl.constexpr,
    N: tl.constexpr,
    LD: tl.constexpr,
):
    """Every gradient of one walk, for a tile of channels: grid (tiles, b, k * segments).

    From the last span of SPAN steps to the first. The state before a span was saved: a run over it
    notes the states at the start of its chunks. Then chunk by chunk, last first, the states inside
    the chunk are recomputed and the gradient runs back through it. With G(t) the gradient of h(t),

        G(t)     = C(t) gy(t) + decay(t+1) G(t+1)         decay(t) = exp(delta(t) A)
        dB(t)    = sum over d of G(t) delta(t) x(t)       dC(t) = sum over d of h(t) gy(t)
        dx(t)    = delta(t) sum over n of G(t) B(t) + D gy(t)
        dA       = sum over t of E(t) delta(t)            E(t) = G(t) decay(t) h(t-1)
        ddelta(t) = x(t) sum over n of G(t) B(t) + sum over n of E(t) A
        d(dt)(t) = ddelta(t) sigmoid(dt(t) + bias)

    Here decay(t) h(t-1) is computed as h(t) minus the input of step t.
    """
    pixels = height * width
    tile = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    walk = tl.program_id(2) // segments
    segment = tl.program_id(2) % segments
    lane = tl.arange(0, CH)[:, None] * LD + tl.arange(0, LD)
    channel = tile * (CH * LD) + lane
    n = tl.arange(0, N)
    step = tl.arange(0, T)
    first = (step == 0)[:, None, None, None]
    last = (step == T - 1)[:, None, None, None]
    real = channel < channels
    kept = real[:, None, :] & (n < states)[None, :, None]
    state_at = n[None, :, None] * channels + channel[:, None, :]
    x += image * x_image
    dt += image * dt_image + walk.to(tl.int64) * dt_walk
    B += image * b_image + walk.to(tl.int64) * b_walk
    C += image * c_image + walk.to(tl.int64) * c_walk
    gy += image * gy_image
    gx += (walk * batch + image) * pixels * channels
    gdt += image * gdt_image + walk.to(tl.int64) * gdt_walk
    gB += (tile * batch + image) * pixels * 4 * states
    gC += (tile * batch + image) * pixels * 4 * states
    slot = image * 4 + walk
    saved += slot * tl.cdiv(pixels, SPAN) * states * channels
    program = (slot * segments + segment) * tl.num_programs(0) + tile
    scratch += program * (SPAN // T) * N * CH * LD
    scratch_at = n[None, :, None] * (CH * LD) + lane[:, None, :]

    A += walk * channels * states
    a = read_rate(A, rate_at(channel, n, a_channel, a_state), kept)
    d = read_each(skip, walk * channels + channel, real)
    shift = read_each(bias, walk * channels + channel, real)
    back = tl.zeros([CH, N, LD], tl.float32)  # decay(t+1) G(t+1) from the chunk done before
    for behind in range(segments - 1 - segment):
        at = slot * segments + segments - 1 - behind
        total = tl.load(totals + at * channels + channel, mask=real, other=0.0)
        end = tl.load(ends + at * states * channels + state_at, mask=kept, other=0.0)
        back = tl.exp2(total[:, None, :] * a) * back + end
    sum_rate = tl.zeros([CH, N, LD], tl.float32)
    sum_skip = tl.zeros([CH, LD], tl.float32)
    sum_bias = tl.zeros([CH, LD], tl.float32)

    begin = segment * share
    spans = tl.cdiv(tl.minimum(share, pixels - begin), SPAN)
    for done in tl.range(0, spans, num_stages=1):
        span = begin + (spans - 1 - done) * SPAN
        h0 = tl.load(saved + (span // SPAN) * states * channels + state_at, mask=kept, other=0.0)
        t = span + step
        pixel_up = _pixel(walk, t, height, width, reciprocal)
        here_up = (t < pixels)[:, None, None] & real[None]
        u_up, v_up = _read_step(x, dt, pixel_up, channel, x_pixel, dt_pixel, here_up)
        b_up = _read_states(B, pixel_up, b_pixel, n, states, t < pixels)
        tl.debug_barrier()  # the lanes are done with the scratch of the last span
        tl.store(scratch + scratch_at, h0)
        t = span + (SPAN - T) + step
        pixel = _pixel(walk, t, height, width, reciprocal)
        on = t < pixels
        here = on[:, None, None] & real[None]
        u, v = _read_step(x, dt, pixel, channel, x_pixel, dt_pixel, here)
        g = _read_map(gy, pixel, channel, gy_pixel, here)
        b = _read_states(B, pixel, b_pixel, n, states, on)
        c = _read_states(C, pixel, c_pixel, n, states, on)
        for chunk in tl.range(1, SPAN // T, num_stages=1):
            t = span + chunk * T + step
            pixel_up = _pixel(walk, t, height, width, reciprocal)
            here_next = (t < pixels)[:, None, None] & real[None]
            u_next, v_next = _read_step(x, dt, pixel_up, channel, x_pixel, dt_pixel, here_next)
            b_next = _read_states(B, pixel_up, b_pixel, n, states, t < pixels)
            delta, _ = softplus(v_up + shift[None])
            delta = tl.where(here_up, delta, 0.0)
            decay = tl.exp2(delta[:, :, None, :] * a[None])
            fed = (delta * u_up)[:, :, None, :] * b_up[:, None, :, None]
            fed = tl.where(first, decay * h0[None] + fed, fed)
            _, h = tl.associative_scan((decay, fed), 0, _step)
            h0 = tl.sum(tl.where(last, h, 0.0), 0)
            tl.store(scratch + chunk * N * CH * LD + scratch_at, h0)
            u_up, v_up, b_up, here_up = u_next, v_next, b_next, here_next
        tl.debug_barrier()

        for past in tl.range(0, SPAN // T, num_stages=1):
            chunk = SPAN // T - 1 - past
            # The chunk before this one is on its way, here and into the span before.
            t = span + (chunk - 1) * T + step
            pixel_next = _pixel(walk, tl.maximum(t, 0), height, width, reciprocal)
            on_next = t < pixels
            here_next = on_next[:, None, None] & real[None]
            u_next, v_next = _read_step(x, dt, pixel_next, channel, x_pixel, dt_pixel, here_next)
            g_next = _read_map(gy, pixel_next, channel, gy_pixel, here_next)
            b_next = _read_states(B, pixel_next, b_pixel, n, states, on_next)
            c_next = _read_states(C, pixel_next, c_pixel, n, states, on_next)
            h0 = tl.load(scratch + chunk * N * CH * LD + scratch_at)

            delta, z = softplus(v + shift[None])
            sigmoid = tl.where(v + shift[None] >= 0, 1.0, z) / (1.0 + z)
            delta = tl.where(here, delta, 0.0)
            decay = tl.exp2(delta[:, :, None, :] * a[None])
            fed = (delta * u)[:, :, None, :] * b[:, None, :, None]
            _, h = tl.associative_scan(
                (decay, tl.where(first, decay * h0[None] + fed, fed)), 0, _step
            )
            pull = g[:, :, None, :] * c[:, None, :, None]
            pull = tl.where(last, pull + back[None], pull)
            rest = tl.full([T, CH, N, LD], 1.0, tl.float32)
            # tl.flip of an axis in registers is free; a scan with reverse=True takes shuffles.
            _, _, G = tl.associative_scan(
                (tl.flip(decay, 0), rest, tl.flip(pull, 0)), 0, _step_back
            )
            G = tl.flip(G, 0)
            back = tl.sum(tl.where(first, decay * G, 0.0), 0)

            row_at = (pixel[:, None] * 4 + walk) * states + n[None]
            row = on[:, None] & (n < states)[None]
            tl.store(gC + row_at, _sum_channels(h * g[:, :, None, :], T, N, LD), mask=row)
            gb = _sum_channels(G * (delta * u)[:, :, None, :], T, N, LD)
            tl.store(gB + row_at, gb, mask=row)
            gfed = _sum_states(G * b[:, None, :, None], T, CH, N, LD)
            E = G * (h - fed)
            sum_rate += tl.sum(E * delta[:, :, None, :], 0)
            gdelta = gfed * u + _sum_states(E * a[None], T, CH, N, LD) * LN_2
            gv = tl.where(here, gdelta * sigmoid, 0.0)
            sum_bias += tl.sum(gv, 0)
            sum_skip += tl.sum(g * u, 0)
            tl.store(gdt + pixel[:, None, None] * gdt_pixel + channel[None], gv, mask=here)
            gu = gfed * delta + d[None] * g
            tl.store(gx + pixel[:, None, None] * channels + channel[None], gu, mask=here)
            u, v, g, b, c = u_next, v_next, g_next, b_next, c_next
            pixel, on, here = pixel_next, on_next, here_next

    whole = (image * segments + segment) * 4 + walk
    gA += whole * channels * states
    gskip += whole * channels
    gbias += whole * channels
    tl.store(gA + rate_at(channel, n, a_channel, a_state), sum_rate, mask=kept)
    tl.store(gskip + channel, sum_skip, mask=real)
    tl.store(gbias + channel, sum_bias, mask=real)
