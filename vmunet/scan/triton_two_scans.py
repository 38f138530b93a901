"""The backward pass of the 2D selective scan as two scans that keep no states, in Triton.

With the letters of `triton_kernels.backward_kernel` and m(t) = decay(t) h(t-1), the gradients of A
and of the time step need E(t) = G(t) m(t): states, which come from the past, times G, which comes
from the future. A single pass recomputes the states for that, and keeps those of a chunk. But from

    G(t) = C(t) gy(t) + back(t)          back(t) = decay(t+1) G(t+1)
    h(t) = m(t) + delta(t) x(t) B(t)     E(t+1) = G(t+1) decay(t+1) h(t) = back(t) h(t)

it follows that E is a running sum, from the end of a walk, of terms that need one side each:

    E(t) = E(t+1) + e(t)                 e(t) = C(t) gy(t) m(t) - back(t) delta(t) x(t) B(t)

Its two uses are sums over e. Over a span of steps that ends before step t', with Delta(s) the sum
of delta from the first step of the span up to s,

    sum over n of E(t) A                  = sum over n of (E(t') A + the sum over s >= t of e(s) A)
    dA = the sum over t of E(t) delta(t)  = E(t') Delta(t' - 1) + the sum over s of e(s) Delta(s)

`ahead_kernel` walks ahead: states, dC, and the first term of e. `back_kernel` walks back: G, dB,
dx, the second term, and the gradient of dt. `triton_sums.finish_kernel` adds the parts. Each pass
is as light as the forward one. Both take m and not h: the terms with h have a common part that
cancels, and under strong decay dA would lose three digits.

The running sum starts anew at every SPAN-th step, where E = back h is known from the saved state:
otherwise its rounding errors would grow along the walk. What is left is about twice the error in dA
of the single pass, and more under strong decay: up to 1e-5 of the largest entry.

A lane holds all states of its channels, so a sum over states stays in the lane; a sum over channels
goes through shared memory once a step. U steps' inputs are on their way while a step is computed.
The kernels take up to 16 states and images of at least 2 U rows, see `_route`.

No GPU has run these kernels yet; see `triton_tiles` for how to choose them.
"""

# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"

import triton
import triton.language as tl

from vmunet.scan.triton_kernels import (
    LN_2,
    WARP,
    fold,
    rate_at,
    read_each,
    read_rate,
    scan_kernel,
    softplus,
)


@triton.jit
def _sum_channels(p, N: tl.constexpr, LD: tl.constexpr):
    """[CH, N, LD] -> [N]. SHARED lanes add parts of a row, so that no lane is idle."""
    SHARED: tl.constexpr = max(1, min(LD, WARP // N))
    p = fold(tl.reshape(tl.sum(p, 0), [N * SHARED, LD // SHARED]))
    return tl.sum(tl.reshape(p, [N, SHARED]), 1)


@triton.jit
def _route(walk, t, height, width, BACK: tl.constexpr):
    """Where a walk is at step t, and how it goes on.

    Returns the pixel, how many steps are left in this line of the image (its own included), and the
    way: the length of a line, the distance to the next pixel within a line, and that from the last
    pixel of a line to the first of the next.

    A walk that goes on past its end comes to other pixels of the image for as many steps as the
    image has rows, less one. So the inputs of steps that do not exist are read without a mask.
    """
    pixels = height * width
    by_columns = (walk % 2 == 1) & (height > 1)
    line = tl.where(by_columns, height, pixels)
    near = tl.where(by_columns, width, 1)
    far = 1 - (line - 1) * near
    pixel = t // line + t % line * near
    if walk >= 2:
        pixel = pixels - 1 - pixel
        near = -near
        far = -far
    left = line - t % line
    if BACK:
        left = t % line + 1
        near = -near
        far = -far
    return pixel, left, (line, near, far)


@triton.jit
def _start(pixel, left, lane, n, strides, N: tl.constexpr):
    """A place: offsets of a pixel in the maps of x, in dt, in B and C, and in dB or dC; steps left.

    Offsets are vectors of lanes, though their pixel is one: the assembler then computes an address
    by one instruction instead of four.
    """
    in_x, in_dt, in_bc, in_sums = strides
    at_bc = pixel * in_bc + tl.zeros([2, N], tl.int32)
    return pixel * in_x + lane, pixel * in_dt + lane, at_bc, pixel * in_sums + n, left


@triton.jit
def _move(place, way, strides):
    """The place of the walk's next step."""
    at, at_dt, at_bc, at_sums, left = place
    line, near, far = way
    in_x, in_dt, in_bc, in_sums = strides
    left -= 1
    hop = tl.where(left == 0, far, near)
    left = tl.where(left == 0, line, left)
    return (
        at + hop * in_x,
        at_dt + hop * in_dt,
        at_bc + hop * in_bc,
        at_sums + hop * in_sums,
        left,
    )


@triton.jit
def _read(pointer, mask, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(pointer)
    else:
        return tl.load(pointer, mask=mask, other=0.0)


@triton.jit
def _write(pointer, value, mask, EVEN: tl.constexpr):
    if EVEN:
        tl.store(pointer, value)
    else:
        tl.store(pointer, value, mask=mask)


@triton.jit
def _ask(x, dt, gy, BC, place, across, real, some, EVEN: tl.constexpr):
    """x, dt and gy of a step, (CH, LD), and its rows of B and C as one tensor (2, N).

    That tensor fills the lanes of a warp. Two rows would be loaded by every lane as a whole.
    """
    at, at_dt, at_bc, _, _ = place
    u = _read(x + at[None] + across, real, EVEN)
    v = _read(dt + at_dt[None] + across, real, EVEN)
    g = _read(gy + at[None] + across, real, EVEN)
    return u, v, g, _read(BC + at_bc, some[None], EVEN)


@triton.jit
def _ask_back(x, dt, gy, BC, pulled, place, across, real, some, EVEN: tl.constexpr):
    """`_ask`, and what `ahead_kernel` left for the step."""
    u, v, g, bc = _ask(x, dt, gy, BC, place, across, real, some, EVEN)
    return u, v, g, bc, _read(pulled + place[0][None] + across, real, EVEN)


@triton.jit
def _both(B, C, n):
    """Pointers to a row of B and one of C, (2, N)."""
    return tl.where((tl.arange(0, 2) == 0)[:, None], B, C) + n[None]


@scan_kernel()
def ahead_kernel(
    x,  # (b, l, d)
    dt,  # (b, l, k, d)
    A,  # (k, d, n), strides a_channel, a_state
    B,  # (b, l, k, n), float32
    C,  # the same, with the strides of B except for that of an image
    bias,  # (k, d)
    gy,  # (b, l, d)
    saved,  # (b, k, ceil(l / SPAN), n, d)
    pulled,  # (k, b, l, d): sum over n of C gy m A log2(e)
    spans,  # (b, k, ceil(l / SPAN), d): the sum of a span's time steps
    ends,  # (b, k, s, n, d): back before a segment's first step if it is zero after its last
    totals,  # (b, k, s, d): the sum of a segment's time steps
    gA,  # (b, s, k, d, n): partial sums
    gC,  # (tiles, b, l, k, n): partial sums
    batch,
    height,
    width,
    channels,
    states,
    segments,
    share,
    a_channel,
    a_state,
    dt_image,
    dt_pixel,
    dt_walk,
    b_image,
    b_pixel,
    b_walk,
    c_image,
    SUMMARY: tl.constexpr,
    EVEN: tl.constexpr,
    SPAN: tl.constexpr,
    U: tl.constexpr,
    CH: tl.constexpr,
    N: tl.constexpr,
    LD: tl.constexpr,
):
    """Along a walk: dC, and what of e(t) needs the past; grid (tiles, b, k * segments).

    SUMMARY: there are several segments, so `ends` and `totals` are computed for `back_kernel`.
    EVEN: no masks are needed, since CH * LD divides the channels, U the steps, and N is `states`.
    """
    pixels = height * width
    tile = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    walk = tl.program_id(2) // segments
    segment = tl.program_id(2) % segments
    lane = tile * (CH * LD) + tl.arange(0, LD)
    across = (tl.arange(0, CH) * LD)[:, None]
    channel = across + lane
    n = tl.arange(0, N)
    real = channel < channels
    some = n < states
    kept = real[:, None, :] & some[None, :, None]
    state_at = n[None, :, None] * channels + channel[:, None, :]
    x += image * pixels * channels
    gy += image * pixels * channels
    dt += image * dt_image + walk.to(tl.int64) * dt_walk
    B += image * b_image + walk.to(tl.int64) * b_walk
    C += image * c_image + walk.to(tl.int64) * b_walk
    BC = _both(B, C, n)
    pulled += (walk * batch + image) * pixels * channels
    gC += (tile * batch + image) * pixels * 4 * states + walk * states
    slot = image * 4 + walk
    saved += slot * tl.cdiv(pixels, SPAN) * states * channels
    spans += slot * tl.cdiv(pixels, SPAN) * channels

    A += walk * channels * states
    a = read_rate(A, rate_at(channel, n, a_channel, a_state), kept)
    shift = read_each(bias, walk * channels + channel, real)
    begin = segment * share
    end = tl.minimum(begin + share, pixels)
    h = tl.load(saved + (begin // SPAN) * states * channels + state_at, mask=kept, other=0.0)
    sum_rate = tl.zeros([CH, N, LD], tl.float32)
    since = tl.zeros([CH, LD], tl.float32)  # Delta
    if SUMMARY:
        total = tl.zeros([CH, LD], tl.float32)
        decayed = tl.full([CH, N, LD], 1.0, tl.float32)
        back = tl.zeros([CH, N, LD], tl.float32)

    strides = (channels, dt_pixel, b_pixel, 4 * states)
    pixel, left, way = _route(walk, begin, height, width, False)
    place = _start(pixel, left, lane, n, strides, N)
    inputs, places = (), ()
    for i in tl.static_range(U):  # noqa: B007 (Triton takes no `_` here)
        inputs += (_ask(x, dt, gy, BC, place, across, real, some, EVEN),)
        places += (place,)
        place = _move(place, way, strides)
    for t in tl.range(begin, end, U, num_stages=1):
        inputs_next, places_next = (), ()
        for i in tl.static_range(U):
            u, v, g, bc = inputs[i]
            u, g = u.to(tl.float32), g.to(tl.float32)
            delta, _ = softplus(v.to(tl.float32) + shift)
            b, c = tl.split(tl.trans(bc))
            if U == 1:
                inputs_next += (_ask(x, dt, gy, BC, place, across, real, some, EVEN),)
            on = t + i < end
            if U > 1 and not EVEN:
                delta = tl.where(on, delta, 0.0)
                g = tl.where(on, g, 0.0)
            since += delta
            decay = tl.exp2(delta[:, None, :] * a)
            m = decay * h
            h = m + (delta * u)[:, None, :] * b[None, :, None]
            m_seen = m * c[None, :, None]
            sum_rate += m_seen * (g * since)[:, None, :]
            if SUMMARY:
                total += delta
                decayed *= decay
                back += decayed * (g[:, None, :] * c[None, :, None])
            at, _, _, at_sums, _ = places[i]
            _write(pulled + at[None] + across, g * tl.sum(m_seen * a, 1), real & on, EVEN)
            _write(gC + at_sums, _sum_channels(h * g[:, None, :], N, LD), some & on, EVEN)
            if U > 1:  # into the registers of this step's inputs, which are free now
                inputs_next += (_ask(x, dt, gy, BC, place, across, real, some, EVEN),)
            places_next += (place,)
            place = _move(place, way, strides)
        inputs, places = inputs_next, places_next
        if (t % SPAN == SPAN - U) | (t + U >= end):
            tl.store(spans + (t // SPAN) * channels + channel, since, mask=real)
            since = tl.zeros([CH, LD], tl.float32)
    whole = (image * segments + segment) * 4 + walk
    gA += whole * channels * states
    tl.store(gA + rate_at(channel, n, a_channel, a_state), sum_rate, mask=kept)
    if SUMMARY:
        at_end = slot * segments + segment
        tl.store(ends + at_end * states * channels + state_at, back, mask=kept)
        tl.store(totals + at_end * channels + channel, total, mask=real)


@scan_kernel()
def back_kernel(
    x,  # as for `ahead_kernel`
    dt,
    A,
    B,
    C,
    skip,  # (k, d)
    bias,
    gy,
    saved,
    spans,
    ends,
    totals,
    gx,  # (k, b, l, d): holds `pulled`, and takes every walk's part of the gradient of x
    gdt,  # like dt, with its strides
    gA,
    gB,  # (tiles, b, l, k, n): partial sums
    gskip,  # (b, s, k, d): partial sums
    gbias,  # (b, s, k, d): partial sums
    batch,
    height,
    width,
    channels,
    states,
    segments,
    share,
    a_channel,
    a_state,
    dt_image,
    dt_pixel,
    dt_walk,
    b_image,
    b_pixel,
    b_walk,
    c_image,
    EVEN: tl.constexpr,
    SPAN: tl.constexpr,
    U: tl.constexpr,
    CH: tl.constexpr,
    N: tl.constexpr,
    LD: tl.constexpr,
):
    """Against a walk: dB, dx, the gradient of dt, and what of e(t) needs the future.

    The grid and the segments are those of `ahead_kernel`, which ran before.
    """
    pixels = height * width
    tile = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    walk = tl.program_id(2) // segments
    segment = tl.program_id(2) % segments
    lane = tile * (CH * LD) + tl.arange(0, LD)
    across = (tl.arange(0, CH) * LD)[:, None]
    channel = across + lane
    n = tl.arange(0, N)
    real = channel < channels
    some = n < states
    kept = real[:, None, :] & some[None, :, None]
    state_at = n[None, :, None] * channels + channel[:, None, :]
    x += image * pixels * channels
    gy += image * pixels * channels
    dt += image * dt_image + walk.to(tl.int64) * dt_walk
    gdt += image * dt_image + walk.to(tl.int64) * dt_walk
    B += image * b_image + walk.to(tl.int64) * b_walk
    C += image * c_image + walk.to(tl.int64) * b_walk
    BC = _both(B, C, n)
    gx += (walk * batch + image) * pixels * channels
    gB += (tile * batch + image) * pixels * 4 * states + walk * states
    slot = image * 4 + walk
    saved += slot * tl.cdiv(pixels, SPAN) * states * channels
    spans += slot * tl.cdiv(pixels, SPAN) * channels

    A += walk * channels * states
    a = read_rate(A, rate_at(channel, n, a_channel, a_state), kept)
    d = read_each(skip, walk * channels + channel, real)
    shift = read_each(bias, walk * channels + channel, real)
    back = tl.zeros([CH, N, LD], tl.float32)
    for behind in range(segments - 1 - segment):
        at_end = slot * segments + segments - 1 - behind
        total = tl.load(totals + at_end * channels + channel, mask=real, other=0.0)
        rest = tl.load(ends + at_end * states * channels + state_at, mask=kept, other=0.0)
        back = tl.exp2(total[:, None, :] * a) * back + rest
    sum_rate = tl.zeros([CH, N, LD], tl.float32)
    sum_skip = tl.zeros([CH, LD], tl.float32)
    sum_bias = tl.zeros([CH, LD], tl.float32)
    run = tl.zeros([CH, LD], tl.float32)  # sum over n of E A log2(e)
    since = tl.zeros([CH, LD], tl.float32)  # Delta

    begin = segment * share
    end = tl.minimum(begin + share, pixels)
    # If U does not divide the steps, some past the end come first: they stay at the last pixel.
    late = (U - (end - begin) % U) % U
    strides = (channels, dt_pixel, b_pixel, 4 * states)
    pixel, left, way = _route(walk, end - 1, height, width, True)
    place = _start(pixel, left, lane, n, strides, N)
    inputs, places = (), ()
    for i in tl.static_range(U):
        inputs += (_ask_back(x, dt, gy, BC, gx, place, across, real, some, EVEN),)
        places += (place,)
        if i >= late:
            place = _move(place, way, strides)
    for done in tl.range(0, end - begin + late, U, num_stages=1):
        last = end - 1 + late - done
        if (done == 0) | (last % SPAN == SPAN - 1):
            span = last // SPAN
            more = (span + 1) * SPAN < pixels
            h_at = (span + 1) * states * channels + state_at
            E = back * tl.load(saved + h_at, mask=kept & more, other=0.0)
            since = tl.load(spans + span * channels + channel, mask=real, other=0.0)
            run = tl.sum(E * a, 1)
            sum_rate += E * since[:, None, :]
        inputs_next, places_next = (), ()
        for i in tl.static_range(U):
            u, v, g, bc, pulled = inputs[i]
            u, g = u.to(tl.float32), g.to(tl.float32)
            v = v.to(tl.float32) + shift
            delta, z = softplus(v)
            b, c = tl.split(tl.trans(bc))
            if U == 1:
                inputs_next += (_ask_back(x, dt, gy, BC, gx, place, across, real, some, EVEN),)
            on = last - i < end
            sigmoid = tl.where(v >= 0, 1.0, z) / (1.0 + z)
            if U > 1 and not EVEN:
                delta = tl.where(on, delta, 0.0)
                sigmoid = tl.where(on, sigmoid, 0.0)
                g = tl.where(on, g, 0.0)
                pulled = tl.where(on, pulled, 0.0)
            fed = delta * u
            decay = tl.exp2(delta[:, None, :] * a)
            back_fed = back * b[None, :, None]
            sum_rate -= back_fed * (fed * since)[:, None, :]
            run += pulled - fed * tl.sum(back_fed * a, 1)
            G = g[:, None, :] * c[None, :, None] + back
            back = decay * G
            gfed = tl.sum(G * b[None, :, None], 1)
            since -= delta
            gv = (gfed * u + run * LN_2) * sigmoid
            sum_bias += gv
            sum_skip += g * u
            at, at_dt, _, at_sums, _ = places[i]
            _write(gdt + at_dt[None] + across, gv, real & on, EVEN)
            _write(gx + at[None] + across, gfed * delta + d * g, real & on, EVEN)
            _write(gB + at_sums, _sum_channels(G * fed[:, None, :], N, LD), some & on, EVEN)
            if U > 1:
                inputs_next += (_ask_back(x, dt, gy, BC, gx, place, across, real, some, EVEN),)
            places_next += (place,)
            place = _move(place, way, strides)
        inputs, places = inputs_next, places_next

    whole = (image * segments + segment) * 4 + walk
    gA += whole * channels * states
    tl.store(gA + rate_at(channel, n, a_channel, a_state), sum_rate, mask=kept)
    tl.store(gskip + whole * channels + channel, sum_skip, mask=real)
    tl.store(gbias + whole * channels + channel, sum_bias, mask=real)
