"""Kernels for inference alone: spikes are bytes, nothing is kept for a backward pass.

Each runs on the thread that calls it and without the interpreter's lock: who has several
threads gives each its own part of the batch. Features are innermost, so a parameter (C,) belongs
to neuron i at i % C; rounding is that of `cpu`.
"""

from __future__ import annotations

import numpy as np

from .cpu import _WIDTH, _ZERO, _advance, _copied, _fill, _jit, _resets, _spread, _spread_all

WIDTH = _WIDTH


@_jit
def fire(z, params, v_init, reset, chip, current, spikes):
    """Writes the spikes (T, M), bytes of 0 or 1, of CUBA neurons that get z (Tz, M).

    Tz is T, or 1 for an input that is held. params: current_decay, voltage_decay, threshold, each
    a float32 or an array (C,), as is v_init. current: memory for (WIDTH,) currents; where it and
    current_decay are None, the membrane takes its input as it comes. chip: True or None, as
    in `cpu`.
    """
    time_steps, neurons = spikes.shape
    v = np.empty(min(WIDTH, neurons), np.float32)
    resets = _resets(reset)
    for lo in range(0, neurons, WIDTH):
        hi = min(lo + WIDTH, neurons)
        u = _copied(None, current, 0, hi - lo)
        v[: hi - lo] = _spread(v_init, lo, hi, 1)
        block = _spread_all(params, lo, hi, 1)
        for t in range(time_steps):
            z_t = z[t if z.shape[0] > 1 else 0, lo:hi]
            _advance(z_t, u, v, block, resets, chip, False, spikes[t, lo:hi])


@_jit
def fire_totals(z, params, v_init, reset, chip, current, time_steps, totals):
    """As `fire`, but writes how often each neuron fired, float32 (M,)."""
    neurons = totals.size
    v = np.empty(min(WIDTH, neurons), np.float32)
    spikes = np.empty(v.size, np.uint8)
    resets = _resets(reset)
    for lo in range(0, neurons, WIDTH):
        hi = min(lo + WIDTH, neurons)
        u = _copied(None, current, 0, hi - lo)
        v[: hi - lo] = _spread(v_init, lo, hi, 1)
        block = _spread_all(params, lo, hi, 1)
        total = totals[lo:hi]
        total[:] = _ZERO
        for t in range(time_steps):
            z_t = z[t if z.shape[0] > 1 else 0, lo:hi]
            _advance(z_t, u, v, block, resets, chip, False, spikes)
            for i in range(total.size):
                total[i] += spikes[i]


@_jit
def add_rows(spikes, weight, bias, out):
    """Writes spikes @ weight + bias to out (R, O): each spike adds its row of weight (K, O).

    spikes: bytes (R, K). bias: (O,) or None. Eight rows at a time, so that the sum is read and
    written once for all of them.
    """
    which = np.empty(spikes.shape[1] + 1, np.int64)
    for r in range(spikes.shape[0]):
        count = 0
        for k in range(spikes.shape[1]):  # without a branch, which would be mispredicted
            which[count] = k
            count += spikes[r, k]
        total = out[r]
        _fill(total, bias, 0)
        n = 0
        while n + 8 <= count:
            a, b = weight[which[n]], weight[which[n + 1]]
            c, d = weight[which[n + 2]], weight[which[n + 3]]
            e, f = weight[which[n + 4]], weight[which[n + 5]]
            g, h = weight[which[n + 6]], weight[which[n + 7]]
            for i in range(total.size):
                total[i] += ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]))
            n += 8
        for m in range(n, count):
            a = weight[which[m]]
            for i in range(total.size):
                total[i] += a[i]


@_jit
def pool(spikes, words, window, stride, factor, out):
    """Writes the sum of each window, times factor, to out (R, H', W' C), float32.

    spikes: bytes (R, H, W C), as words of 1 or 8 of them, so many words a pixel: adding words
    adds their bytes, as long as no sum is above 255. window, stride: (height, width).
    """
    line = np.empty_like(spikes[0, 0])
    packed = np.empty_like(line)
    sums = packed.view(np.uint8)
    pixels = out.shape[2] // (words * spikes.itemsize)
    for r in range(spikes.shape[0]):
        for y in range(out.shape[1]):
            for i in range(line.size):
                line[i] = spikes[r, y * stride[0], i]
            for dy in range(1, window[0]):
                for i in range(line.size):
                    line[i] += spikes[r, y * stride[0] + dy, i]
            for x in range(pixels):
                for c in range(words):
                    total = line[x * stride[1] * words + c]
                    for dx in range(1, window[1]):
                        total += line[(x * stride[1] + dx) * words + c]
                    packed[x * words + c] = total
            for i in range(out.shape[2]):
                out[r, y, i] = np.float32(sums[i]) * factor
