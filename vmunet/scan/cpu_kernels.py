"""The 2D selective scan for processors, forward and backward, compiled by numba.

Channels lie in the lanes of vectors (`cpu_lanes`) and time runs sequentially, a chunk of steps at
a time: what a step needs from its channels is computed for the whole chunk, then the states run.
The backward pass starts a chunk from the state that the forward pass saved, and recomputes it.

Arrays, all float32, for b images of l pixels, channels in groups of 16, n states:
x (b, l, groups, 16); dt (b, l, 4, groups, 16); decay (4, groups, n, 16) = A log2(e);
B, C (b, l, 4, n); D (groups, 16), summed over the directions; bias (4, groups, 16);
order (4, l) int64, the pixel of each step of a direction.
A job is one image and one tile of some groups, in all four directions. Jobs share no output, so
that any number of threads gives the same bits.
"""

# mypy: disable-error-code="call-arg, var-annotated"

import zlib
from pathlib import Path

from numba import njit, types

from vmunet.scan import cpu_lanes
from vmunet.scan.cpu_lanes import LN_2, exp2, load, prefetch, softplus, store, total

CHUNK = 16  # steps between saved states


def compiled(*arguments):
    """Compile a function for these types now, or load it from numba's cache.

    The cache watches the file of the function; its name makes it watch `cpu_lanes` too.
    """
    lanes_version = zlib.crc32(Path(cpu_lanes.__file__).read_bytes())

    def decorate(function):
        function.__qualname__ += f"_{lanes_version:08x}"
        signature = types.void(*arguments)
        try:
            return njit(signature, nogil=True, cache=True)(function)
        except (RuntimeError, OSError):  # no folder to keep a cache in: compile for this process
            return njit(signature, nogil=True)(function)

    return decorate


def dense(axes):
    return types.Array(types.float32, axes, "C")


def strided(axes):
    return types.Array(types.float32, axes, "A")


_INPUTS = (
    dense(4), strided(5), dense(4), strided(4), strided(4), dense(2), dense(3),
    types.Array(types.int64, 2, "C"), types.intp, types.intp,
)  # fmt: skip


@njit
def fill(block, value):
    """Every vector of block (groups, n, 16) = value."""
    for i in range(block.shape[0]):
        for s in range(block.shape[1]):
            store(block, (i, s, 0), value)


@njit
def add(sums, losses, index, place, value):
    """sums[index] += value; losses[place] carries what rounding lost (Kahan), for long sums."""
    value = value - load(losses, place)
    before = load(sums, index)
    after = before + value
    store(losses, place, (after - before) - value)
    store(sums, index, after)


@njit
def copy(source, target):
    """target = source, both (groups, n, 16)."""
    for i in range(source.shape[0]):
        for s in range(source.shape[1]):
            store(target, (i, s, 0), load(source, (i, s, 0)))


@compiled(*_INPUTS, dense(3), dense(4), dense(4), dense(6))
def forward(x, dt, decay, B, C, D, bias, order, first, last, state, rows, y, saved):
    """Jobs `first` to `last` - 1 of y; with `saved` not empty, the state before every chunk too.

    Written: y (b, l, groups, 16), saved (b, 4, chunks, groups, n, 16).
    Scratch: state (tile, n, 16), rows (CHUNK, tile, 2, 16).
    """
    length, groups = x.shape[1:3]
    tile, n = state.shape[:2]
    tiles = (groups + tile - 1) // tile
    for job in range(first, last):
        image, start = job // tiles, job % tiles * tile
        stop = min(start + tile, groups)
        for k in range(4):
            fill(state, 0.0)
            for t in range(0, length, CHUNK):
                steps = min(CHUNK, length - t)
                if saved.size > 0:
                    copy(state[: stop - start], saved[image, k, t // CHUNK, start:stop])

                for j in range(steps):
                    p = order[k, t + j]
                    for q in range(start, stop):
                        raw = load(dt, (image, p, k, q, 0)) + load(bias, (k, q, 0))
                        delta, _ = softplus(raw)
                        store(rows, (j, q - start, 0, 0), delta)
                        store(rows, (j, q - start, 1, 0), delta * load(x, (image, p, q, 0)))

                for j in range(steps):
                    p = order[k, t + j]
                    soon = order[k, min(t + j + CHUNK, length - 1)]
                    prefetch(B, (image, soon, k, 0))
                    prefetch(C, (image, soon, k, 0))
                    for q in range(start, stop):
                        prefetch(x, (image, soon, q, 0))
                        prefetch(dt, (image, soon, k, q, 0))
                        prefetch(y, (image, soon, q, 0))
                        delta = load(rows, (j, q - start, 0, 0))
                        step = load(rows, (j, q - start, 1, 0))
                        out = step * 0.0
                        for s in range(n):
                            h = load(state, (q - start, s, 0))
                            h = exp2(delta * load(decay, (k, q, s, 0))) * h
                            h = h + step * B[image, p, k, s]
                            store(state, (q - start, s, 0), h)
                            out = out + h * C[image, p, k, s]
                        if k > 0:
                            out = load(y, (image, p, q, 0)) + out
                        if k == 3:  # last, so that this often largest part is rounded once
                            out = out + load(D, (q, 0)) * load(x, (image, p, q, 0))
                        store(y, (image, p, q, 0), out)


_SCRATCH = (dense(3), dense(3), dense(3))
_OUTPUTS = (dense(4), strided(5), dense(5), dense(5), dense(5), dense(3), dense(4))


@compiled(*_INPUTS, *_SCRATCH, dense(6), dense(4), *_OUTPUTS)
def backward(
    x, dt, decay, B, C, D, bias, order, first, last, scratch, rows, losses, saved, gy,
    gx, gdt, gA, gB, gC, gD, gbias,
):  # fmt: skip
    """Jobs `first` to `last` - 1 of the gradients: gv is the loss's derivative by v.

    Chunk by chunk from the last one; in a chunk forward from the saved state, then back with g,
    the derivative by h_t: g_t = gy_t C_t + exp(delta_{t+1} A) g_{t+1}.

    Written: gx (b, l, groups, 16); gdt (b, l, 4, groups, 16); and, to be summed over images or
    tiles, gA (b, 4, groups, n, 16), gD (b, groups, 16), gbias (b, 4, groups, 16),
    gB and gC (tiles, b, l, 4, n).
    Scratch: (tile + 4 CHUNK + 2, n, 16), rows (CHUNK, 6, 16), losses (tile, n + 2, 16).
    """
    length, groups = x.shape[1:3]
    n = decay.shape[2]
    tile = scratch.shape[0] - 4 * CHUNK - 2
    tiles = (groups + tile - 1) // tile
    carry = scratch[:tile]  # exp(delta A) g of the step after
    factors = scratch[tile : tile + CHUNK]  # exp(delta A)
    sumB = scratch[tile + CHUNK : tile + 2 * CHUNK]
    sumC = scratch[tile + 2 * CHUNK : tile + 3 * CHUNK]
    states = scratch[tile + 3 * CHUNK : tile + 4 * CHUNK + 1]  # h before the chunk and in it
    gA_chunk = scratch[tile + 4 * CHUNK + 1]
    for job in range(first, last):
        image, part = job // tiles, job % tiles
        start = part * tile
        stop = min(start + tile, groups)
        for q in range(start, stop):
            store(gD, (image, q, 0), 0.0)
        for k in range(4):
            fill(carry, 0.0)
            fill(losses, 0.0)
            fill(gA[image, k, start:stop], 0.0)
            fill(gbias[image, k : k + 1, start:stop], 0.0)
            for chunk in range((length - 1) // CHUNK, -1, -1):
                t = chunk * CHUNK
                steps = min(CHUNK, length - t)
                fill(sumB, 0.0)
                fill(sumC, 0.0)
                for q in range(start, stop):
                    for j in range(steps):
                        p, soon = order[k, t + j], order[k, max(t + j - CHUNK, 0)]
                        prefetch(x, (image, soon, q, 0))
                        prefetch(dt, (image, soon, k, q, 0))
                        prefetch(gy, (image, soon, q, 0))
                        prefetch(gx, (image, soon, q, 0))
                        prefetch(gdt, (image, soon, k, q, 0))
                        u = load(x, (image, p, q, 0))
                        raw = load(dt, (image, p, k, q, 0)) + load(bias, (k, q, 0))
                        delta, slope = softplus(raw)
                        store(rows, (j, 0, 0), delta)
                        store(rows, (j, 1, 0), delta * u)
                        store(rows, (j, 2, 0), load(gy, (image, p, q, 0)))
                        store(rows, (j, 3, 0), slope)

                    for s in range(n):
                        store(states, (0, s, 0), load(saved, (image, k, chunk, q, s, 0)))
                        prefetch(saved, (image, k, max(chunk - 1, 0), q, s, 0))
                        store(gA_chunk, (s, 0), 0.0)
                    for j in range(steps):
                        p = order[k, t + j]
                        delta, step = load(rows, (j, 0, 0)), load(rows, (j, 1, 0))
                        gout = load(rows, (j, 2, 0))
                        for s in range(n):
                            factor = exp2(delta * load(decay, (k, q, s, 0)))
                            store(factors, (j, s, 0), factor)
                            h = factor * load(states, (j, s, 0)) + step * B[image, p, k, s]
                            store(states, (j + 1, s, 0), h)
                            store(sumC, (j, s, 0), load(sumC, (j, s, 0)) + gout * h)

                    for j in range(steps - 1, -1, -1):
                        p = order[k, t + j]
                        delta, step = load(rows, (j, 0, 0)), load(rows, (j, 1, 0))
                        gout = load(rows, (j, 2, 0))
                        gstep = step * 0.0
                        gdelta = step * 0.0
                        for s in range(n):
                            g = load(carry, (q - start, s, 0)) + gout * C[image, p, k, s]
                            store(sumB, (j, s, 0), load(sumB, (j, s, 0)) + step * g)
                            gstep = gstep + g * B[image, p, k, s]
                            g = g * load(factors, (j, s, 0))
                            store(carry, (q - start, s, 0), g)
                            g = g * load(states, (j, s, 0))  # the derivative by delta A
                            gdelta = gdelta + g * load(decay, (k, q, s, 0))
                            store(gA_chunk, (s, 0), load(gA_chunk, (s, 0)) + g * delta)
                        store(rows, (j, 4, 0), gstep)
                        store(rows, (j, 5, 0), gdelta * LN_2)

                    for s in range(n):
                        value = load(gA_chunk, (s, 0))
                        add(gA, losses, (image, k, q, s, 0), (q - start, s, 0), value)
                    gbias_chunk = load(rows, (0, 0, 0)) * 0.0
                    gD_chunk = load(rows, (0, 0, 0)) * 0.0
                    for j in range(steps):
                        p = order[k, t + j]
                        u, gout = load(x, (image, p, q, 0)), load(rows, (j, 2, 0))
                        delta, slope = load(rows, (j, 0, 0)), load(rows, (j, 3, 0))
                        gstep, gdelta = load(rows, (j, 4, 0)), load(rows, (j, 5, 0))
                        graw = (gdelta + gstep * u) * slope
                        store(gdt, (image, p, k, q, 0), graw)
                        gbias_chunk = gbias_chunk + graw
                        gu = gstep * delta
                        if k > 0:
                            gu = load(gx, (image, p, q, 0)) + gu
                        if k == 3:
                            gu = gu + load(D, (q, 0)) * gout
                            gD_chunk = gD_chunk + gout * u
                        store(gx, (image, p, q, 0), gu)
                    add(gbias, losses, (image, k, q, 0), (q - start, n, 0), gbias_chunk)
                    if k == 3:
                        add(gD, losses, (image, q, 0), (q - start, n + 1, 0), gD_chunk)

                for j in range(steps):
                    p = order[k, t + j]
                    for s in range(n):
                        gB[part, image, p, k, s] = total(load(sumB, (j, s, 0)))
                        gC[part, image, p, k, s] = total(load(sumC, (j, s, 0)))
