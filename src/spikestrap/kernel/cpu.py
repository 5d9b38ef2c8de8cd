"""Fused CPU kernels for CUBA-LIF dynamics, forward and backward (numba).

Neurons are independent, so they are cut into blocks that threads share out; inside a
block, time is the outer loop and the state stays in cache. The backward pass recomputes
the membrane from the input instead of storing it: one tensor less to move.

Arrays: `z` (Tz, M) with Tz = T, or 1 for an input that is held; spikes (T, M); states (M,).
A parameter is a float32 scalar, or an array (C,): neuron i is in channel (i // inner) % C.
numba compiles one version for scalars and one for arrays from the same source.
Rounding is the reference's: one multiplication, one addition, nothing contracted.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import prange, types
from numba.extending import overload

# Neurons a block: state and parameters of so many stay in a core's cache.
_WIDTH = 4096
# What a block's membrane trace may take in the backward pass, in floats: half an L2 cache.
_TRACE_FLOATS = 65536
_LOG2_E = np.float32(1.4426950408889634)
# 2**-f for |f| <= 1/2: Taylor coefficients of exp(-f ln 2), exact to float32 rounding.
_P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32((-math.log(2)) ** k / math.factorial(k)) for k in range(1, 7)
)
# On Loihi the state is a whole number of 1/4096, of 24 bits with its sign.
_LIMIT, _UNIT = np.float32(2**23 / 4096), np.float32(1 / 4096)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)

_options = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}
_jit = numba.njit(**_options)
_parallel_jit = numba.njit(parallel=True, **_options)


@numba.njit(inline="always")
def _exp_minus(y):
    """exp(-y) for y >= 0 in float32, in arithmetic that vectorizes (libm's does not)."""
    t = min(y, np.float32(86.0)) * _LOG2_E
    n = np.int32(t + np.float32(0.5))
    f = t - np.float32(n)
    p = _P5 + f * _P6
    p = _P4 + f * p
    p = _P3 + f * p
    p = _P2 + f * p
    p = _P1 + f * p
    p = _ONE + f * p
    return p * np.int32((np.int32(127) - n) << np.int32(23)).view(np.float32)


@numba.njit(inline="always")
def _surrogate(code, x):
    """Surrogate derivative h(x), h(0) = 1, by its code in `neuron.surrogate`."""
    if code == 0:
        return _exp_minus(abs(x))
    if code == 1:
        d = _ONE + abs(x)
        return _ONE / (d * d)
    d = np.float32(1.5707963267948966) * x
    return _ONE / (_ONE + d * d)


def _at(param, i):
    """The parameter of neuron i of a block."""
    raise NotImplementedError("compiled only")


@overload(_at, inline="always")
def _at_(param, i):
    if isinstance(param, types.Array):
        return lambda param, i: param[i]
    return lambda param, i: param


def _spread(param, lo, hi, inner):
    """The parameter of each of the neurons lo to hi: an array, or the one scalar."""
    raise NotImplementedError("compiled only")


@overload(_spread)
def _spread_(param, lo, hi, inner):
    if not isinstance(param, types.Array):
        return lambda param, lo, hi, inner: param

    def spread(param, lo, hi, inner):
        out = np.empty(hi - lo, np.float32)
        channel = (lo // inner) % param.size
        left = inner - lo % inner
        for i in range(out.size):
            out[i] = param[channel]
            left -= 1
            if left == 0:
                left = inner
                channel = channel + 1 if channel + 1 < param.size else 0
        return out

    return spread


@_jit
def _gather(values, lo, inner, sums):
    """Adds each neuron's value to the sum of its channel."""
    for i in range(values.size):
        sums[((lo + i) // inner) % sums.size] += values[i]


@numba.njit(inline="always")
def _decayed(x, decay):
    """A state in whole 1/4096 after its decay, rounded toward zero; exact in float64."""
    return np.float32(np.trunc(np.float64(x) * (4096.0 - 4096.0 * np.float64(decay))) / 4096.0)


@_jit
def _advance(
    z, u, v, current_decay, voltage_decay, threshold, to_zero, by_threshold, chip, trace, out
):
    """One step of the state in place; writes spikes to out, or the membrane before reset.

    v - s v is the reset to zero, v - s threshold the one by subtraction. On the chip
    (Lava's bit-accurate LIF) the current wraps around and the membrane saturates.
    """
    for i in range(z.size):
        if chip is None:
            u_t = u[i] * (_ONE - _at(current_decay, i)) + z[i]
            v_t = v[i] * (_ONE - _at(voltage_decay, i)) + u_t
        else:
            u_t = _decayed(u[i], _at(current_decay, i)) + z[i]
            u_t = u_t - np.float32(2) * _LIMIT if u_t > _LIMIT else u_t
            u_t = u_t + np.float32(2) * _LIMIT if u_t <= -_LIMIT else u_t
            v_t = _decayed(v[i], _at(voltage_decay, i)) + u_t
            v_t = max(min(v_t, _LIMIT - _UNIT), _UNIT - _LIMIT)
        theta = _at(threshold, i)
        s = _ONE if v_t > theta else _ZERO
        u[i] = u_t
        v[i] = v_t - s * (to_zero * v_t + by_threshold * theta)
        out[i] = v_t if trace else s


@numba.njit(inline="always")
def _surrogate_slope(v, theta, surrogate, tau_grad, scale_grad):
    """d spike / d v."""
    tau = tau_grad * theta
    return scale_grad / (np.float32(2.0) * tau) * _surrogate(surrogate, (v - theta) / tau)


@_parallel_jit
def cuba_forward(
    z, u0, v0, current_decay, voltage_decay, threshold, inner, reset, chip, spikes, u1, v1
):
    """Writes spikes (T, M) and the states after the last step u1, v1 (M,)."""
    time_steps, neurons = spikes.shape
    held = z.shape[0] == 1
    to_zero = _ONE if reset == 0 else _ZERO
    by_threshold = _ONE if reset == 1 else _ZERO
    for block in prange((neurons + _WIDTH - 1) // _WIDTH):
        lo = block * _WIDTH
        hi = min(lo + _WIDTH, neurons)
        cd = _spread(current_decay, lo, hi, inner)
        vd = _spread(voltage_decay, lo, hi, inner)
        theta = _spread(threshold, lo, hi, inner)
        u = u1[lo:hi]
        v = v1[lo:hi]
        u[:] = u0[lo:hi]
        v[:] = v0[lo:hi]
        for t in range(time_steps):
            z_t = z[0 if held else t, lo:hi]
            out = spikes[t, lo:hi]
            _advance(z_t, u, v, cd, vd, theta, to_zero, by_threshold, chip, False, out)


@_jit
def backward_width(time_steps):
    """Neurons a block of the backward pass: its membrane trace must fit the cache."""
    return max(16, min(_WIDTH, _TRACE_FLOATS // max(time_steps, 1)))


@_parallel_jit
def cuba_backward(
    grad_spikes,
    grad_u1,
    grad_v1,
    z,
    u0,
    v0,
    current_decay,
    voltage_decay,
    threshold,
    inner,
    reset,
    surrogate,
    tau_grad,
    scale_grad,
    detach_reset,
    chip,
    grad_z,
    grad_u0,
    grad_v0,
    grad_params,
):
    """Writes grad_z (Tz, M), grad_u0, grad_v0 (M,) and, unless it is None, grad_params.

    `grad_params` (3, blocks, size) holds one row a block, so that no two threads add to
    the same place: current_decay, voltage_decay, threshold; the caller sums over blocks.
    """
    time_steps, neurons = grad_spikes.shape
    held = z.shape[0] == 1
    to_zero = _ONE if reset == 0 else _ZERO
    by_threshold = _ONE if reset == 1 else _ZERO
    through_reset = _ZERO if detach_reset else _ONE
    tau_grad = np.float32(tau_grad)
    scale_grad = np.float32(scale_grad)
    width = backward_width(time_steps)
    for block in prange((neurons + width - 1) // width):
        lo = block * width
        hi = min(lo + width, neurons)
        n = hi - lo
        cd = _spread(current_decay, lo, hi, inner)
        vd = _spread(voltage_decay, lo, hi, inner)
        theta = _spread(threshold, lo, hi, inner)
        h = np.empty(n, np.float32)
        trace = np.empty((time_steps, n), np.float32)
        grad_u = grad_u0[lo:hi]
        grad_v = grad_v0[lo:hi]

        # Forward again, u and v in the places where their gradients go afterwards.
        grad_u[:] = u0[lo:hi]
        grad_v[:] = v0[lo:hi]
        if grad_params is not None:
            u_trace = np.empty((time_steps, n), np.float32)
            sums = np.zeros((3, n), np.float32)
        for t in range(time_steps):
            z_t = z[0 if held else t, lo:hi]
            _advance(
                z_t, grad_u, grad_v, cd, vd, theta, to_zero, by_threshold, chip, True, trace[t]
            )
            if grad_params is not None:
                u_trace[t] = grad_u

        grad_u[:] = grad_u1[lo:hi]
        grad_v[:] = grad_v1[lo:hi]
        if held:
            grad_z[0, lo:hi] = _ZERO
        for t in range(time_steps - 1, -1, -1):
            v = trace[t]
            grad_s = grad_spikes[t, lo:hi]
            out = h if held else grad_z[t, lo:hi]
            if grad_params is not None:
                for i in range(n):
                    th = _at(theta, i)
                    s = _ONE if v[i] > th else _ZERO
                    fell = to_zero * v[i] + by_threshold * th
                    slope = _surrogate_slope(v[i], th, surrogate, tau_grad, scale_grad)
                    by_spike = (grad_s[i] - through_reset * grad_v[i] * fell) * slope
                    grad_pre = grad_v[i] * (_ONE - to_zero * s) + by_spike
                    u_before = u0[lo + i]
                    v_before = v0[lo + i]
                    if t > 0:
                        u_before = u_trace[t - 1, i]
                        w = trace[t - 1, i]
                        r = _ONE if w > th else _ZERO
                        v_before = w - r * (to_zero * w + by_threshold * th)
                    sums[0, i] -= (grad_u[i] + grad_pre) * u_before
                    sums[1, i] -= grad_pre * v_before
                    sums[2, i] -= by_spike + by_threshold * s * grad_v[i]
            for i in range(n):
                th = _at(theta, i)
                s = _ONE if v[i] > th else _ZERO
                fell = to_zero * v[i] + by_threshold * th
                slope = _surrogate_slope(v[i], th, surrogate, tau_grad, scale_grad)
                by_spike = (grad_s[i] - through_reset * grad_v[i] * fell) * slope
                grad_pre = grad_v[i] * (_ONE - to_zero * s) + by_spike
                grad_u_t = grad_u[i] + grad_pre
                out[i] = grad_u_t
                grad_v[i] = grad_pre * (_ONE - _at(vd, i))
                grad_u[i] = grad_u_t * (_ONE - _at(cd, i))
            if held:
                for i in range(n):
                    grad_z[0, lo + i] += h[i]
        if grad_params is not None:
            for k in range(3):
                _gather(sums[k], lo, inner, grad_params[k, block])
