"""Loihi's CUBA-LIF in integers (numba): the right-hand sides of Lava's bit-accurate LIF.

u = decay(u) + (a << 6) wraps around at 24 bits, v = decay(v) + u + (bias << 6) saturates;
decay(x) = x (4096 - d) >> 12, toward zero; a spike where v > threshold << 6, then the reset.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from ..kernel.threads import parallel_jit

_LIMIT = np.int64(2**23)


@numba.njit(inline="always")
def _decayed(x, decay):
    magnitude = (abs(x) * (np.int64(4096) - decay)) >> 12
    return magnitude if x >= 0 else -magnitude


@numba.njit(inline="always")
def _step(a, bias, u, v, current_decay, voltage_decay, threshold, reset, i):
    """Neuron i: updates u and v in place, returns its spike."""
    u_t = _decayed(np.int64(u[i]), current_decay[i]) + (np.int64(a) << 6)
    if u_t > _LIMIT:
        u_t -= 2 * _LIMIT
    elif u_t <= -_LIMIT:
        u_t += 2 * _LIMIT
    v_t = _decayed(np.int64(v[i]), voltage_decay[i]) + u_t + (np.int64(bias) << 6)
    v_t = max(min(v_t, _LIMIT - 1), 1 - _LIMIT)
    theta = np.int64(threshold[i]) << 6
    fires = v_t > theta
    if fires and reset == 0:
        v_t = np.int64(0)
    elif fires and reset == 1:
        v_t -= theta
    u[i] = u_t
    v[i] = v_t
    return np.uint8(1) if fires else np.uint8(0)


@parallel_jit
def run(
    a, bias, rows, u, v, current_decay, voltage_decay, threshold, reset, zero_at, spikes, currents
):
    """Runs neurons over time: writes spikes (T, N, M), and u and v (N, M) in place.

    a (T, N, M): weighted spikes, None for none. bias: (N, M), or (1, M) for all samples. rows
    (M, M): from row to row, the weights of the layer's own spikes of one step ago, or None.
    zero_at (T,): before which steps the state is zeroed. currents (T, N, M): for u, or None.
    """
    steps, samples, neurons = spikes.shape
    for n in prange(samples):
        drive = np.zeros(neurons, np.int32)
        constant = bias[n] if bias.shape[0] > 1 else bias[0]
        for t in range(steps):
            if zero_at[t]:
                u[n] = 0
                v[n] = 0
            if a is not None:
                drive[:] = a[t, n]
            if rows is not None and t > 0:
                for j in range(neurons):
                    if spikes[t - 1, n, j]:
                        for i in range(neurons):
                            drive[i] += rows[j, i]
            for i in range(neurons):
                spikes[t, n, i] = _step(
                    drive[i], constant[i], u[n], v[n],
                    current_decay, voltage_decay, threshold, reset, i,
                )  # fmt: skip
                if currents is not None:
                    currents[t, n, i] = u[n, i]


@parallel_jit
def gather_rows(spikes, rows, out):
    """Event-driven product: out (B, M) = the sum of the rows (K, M) whose spike (B, K) is 1."""
    for b in prange(spikes.shape[0]):
        total = out[b]
        total[:] = 0
        for k in range(spikes.shape[1]):
            if spikes[b, k]:
                row = rows[k]
                for i in range(total.size):
                    total[i] += row[i]
