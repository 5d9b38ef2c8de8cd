"""Fused CPU kernels for CUBA-LIF dynamics, forward and backward (numba).

Neurons are independent, so they are cut into blocks that threads share out; inside a
block, time is the outer loop and the state stays in cache. The backward pass recomputes
the membrane from the input instead of storing it: one tensor less to move.

Arrays: `z` (Tz, M) with Tz = T, or 1 for an input that is held; spikes (T, M); states (M,),
the first also (1,), the same for all neurons.
A parameter is a float32 scalar, or an array (C,): neuron i is in channel (i // inner) % C.
numba compiles one version for scalars and one for arrays from the same source.
Rounding is the reference's: one multiplication, one addition, nothing contracted.
"""

from __future__ import annotations

import math
from typing import Any

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


@_jit
def _exponential(x):
    """exp(-|x|) in arithmetic that vectorizes (libm's does not)."""
    t = min(abs(x), np.float32(86.0)) * _LOG2_E
    n = np.int32(t + np.float32(0.5))
    f = t - np.float32(n)
    p = _P5 + f * _P6
    p = _P4 + f * p
    p = _P3 + f * p
    p = _P2 + f * p
    p = _P1 + f * p
    p = _ONE + f * p
    return p * np.int32((np.int32(127) - n) << np.int32(23)).view(np.float32)


@_jit
def _fast_sigmoid(x):
    d = _ONE + abs(x)
    return _ONE / (d * d)


@_jit
def _arctan(x):
    d = np.float32(1.5707963267948966) * x
    return _ONE / (_ONE + d * d)


def _surrogate(code, x):
    """Surrogate derivative h(x), h(0) = 1, by its code in `neuron.surrogate`.

    The code is a constant, so that a loop is compiled for each surrogate: one that looks
    which it is does so at every spike.
    """
    raise NotImplementedError("compiled only")


@overload(_surrogate, prefer_literal=True)
def _surrogate_(code, x):
    h = (_exponential, _fast_sigmoid, _arctan)[code.literal_value]
    return lambda code, x: h(x)


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
def _spread_all(params, lo, hi, inner):
    current_decay, voltage_decay, threshold = params
    return (
        _spread(current_decay, lo, hi, inner),
        _spread(voltage_decay, lo, hi, inner),
        _spread(threshold, lo, hi, inner),
    )


def _row(rows, k):
    """rows[k], None if there are no rows."""
    raise NotImplementedError("compiled only")


@overload(_row)
def _row_(rows, k):
    if isinstance(rows, types.NoneType):
        return lambda rows, k: None
    return lambda rows, k: rows[k]


@_jit
def _fill(block, source, lo):
    """From lo on in source, which may be one value for all, or None for 0."""
    if source is None:
        block[:] = _ZERO
    elif source.size == 1:
        block[:] = source[0]
    else:
        block[:] = source[lo : lo + block.size]


def _copied(source, target, lo, hi):
    """The block of target, filled from that of source; None if there is no target."""
    raise NotImplementedError("compiled only")


@overload(_copied)
def _copied_(source, target, lo, hi):
    if isinstance(target, types.NoneType):
        return lambda source, target, lo, hi: None

    def copied(source, target, lo, hi):
        block = target[lo:hi]
        _fill(block, source, lo)
        return block

    return copied


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
def _advance(z, u, v, params, resets, chip, trace, out):
    """One step of the state in place; writes spikes to out, or the membrane before reset.

    v - s v is the reset to zero, v - s threshold the one by subtraction. On the chip
    (Lava's bit-accurate LIF) the current wraps around and the membrane saturates.
    """
    current_decay, voltage_decay, threshold = params
    to_zero, by_threshold = resets
    for i in range(z.size):
        if u is None:
            v_t = v[i] * (_ONE - _at(voltage_decay, i)) + z[i]
        elif chip is None:
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
        if u is not None:
            u[i] = u_t
        v[i] = v_t - s * (to_zero * v_t + by_threshold * theta)
        out[i] = v_t if trace else s


@numba.njit(inline="always")
def _membrane_grads(surrogate, v, theta, sharpness, spiking, grad_s, grad_v):
    """Gradients of a membrane before its reset: that through its spike, and all of it.

    sharpness: 1 / (tau_grad threshold), divided once a block instead of once a spike.
    """
    (to_zero, by_threshold), through_reset, half_scale = spiking
    s = _ONE if v > theta else _ZERO
    slope = half_scale * sharpness * _surrogate(surrogate, (v - theta) * sharpness)
    fell = to_zero * v + by_threshold * theta
    by_spike = (grad_s - through_reset * grad_v * fell) * slope
    return by_spike, grad_v * (_ONE - to_zero * s) + by_spike


@_jit
def _retreat(
    surrogate, u_before, v_before, v, params, sharpness, spiking, grad_s, grad_u, grad_v, out, sums
):
    """One step back: v before the reset; grad_u, grad_v in place; the input's to out.

    Unless sums (3, n) is None, adds to it the parameters' gradients; for these u_before and
    v_before are the state before the step, the membrane after its reset.
    """
    current_decay, voltage_decay, threshold = params
    if sums is not None:
        (_, by_threshold), _, _ = spiking
        for i in range(v.size):
            theta = _at(threshold, i)
            by_spike, grad = _membrane_grads(
                surrogate, v[i], theta, _at(sharpness, i), spiking, grad_s[i], grad_v[i]
            )
            if grad_u is not None:
                sums[0, i] -= (grad_u[i] + grad) * u_before[i]
            sums[1, i] -= grad * v_before[i]
            s = _ONE if v[i] > theta else _ZERO
            sums[2, i] -= by_spike + by_threshold * s * grad_v[i]
    for i in range(v.size):
        _, grad = _membrane_grads(
            surrogate, v[i], _at(threshold, i), _at(sharpness, i), spiking, grad_s[i], grad_v[i]
        )
        grad_v[i] = grad * (_ONE - _at(voltage_decay, i))
        if grad_u is None:
            out[i] = grad
        else:
            grad_u_t = grad_u[i] + grad
            out[i] = grad_u_t
            grad_u[i] = grad_u_t * (_ONE - _at(current_decay, i))


@_jit
def _reset(v, threshold, resets, out):
    """The membrane after its reset."""
    to_zero, by_threshold = resets
    for i in range(v.size):
        s = _ONE if v[i] > _at(threshold, i) else _ZERO
        out[i] = v[i] - s * (to_zero * v[i] + by_threshold * _at(threshold, i))


@_jit
def _resets(reset):
    """What a spike takes off the membrane: (to zero, by the threshold), each 0 or 1."""
    return (_ONE if reset == 0 else _ZERO, _ONE if reset == 1 else _ZERO)


@_jit
def _forward_block(lo, hi, z, u0, v0, params, inner, reset, chip, spikes, u1, v1):
    time_steps, held = spikes.shape[0], z.shape[0] == 1
    params = _spread_all(params, lo, hi, inner)
    resets = _resets(reset)
    u = _copied(u0, u1, lo, hi)
    v = _copied(v0, v1, lo, hi)
    for t in range(time_steps):
        z_t = z[0 if held else t, lo:hi]
        _advance(z_t, u, v, params, resets, chip, False, spikes[t, lo:hi])


@_parallel_jit
def cuba_forward(z, u0, v0, params, inner, reset, chip, spikes, u1, v1):
    """Writes spikes (T, M) and the states after the last step u1, v1 (M,).

    params: current_decay, voltage_decay, threshold. u0, u1 and current_decay None: no
    current, the membrane takes its input as it comes.
    """
    neurons = spikes.shape[1]
    for block in prange((neurons + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, neurons)
        _forward_block(lo, hi, z, u0, v0, params, inner, reset, chip, spikes, u1, v1)


@_jit
def backward_width(time_steps):
    """Neurons a block of the backward pass: its membrane trace must fit the cache."""
    return max(16, min(_WIDTH, _TRACE_FLOATS // max(time_steps, 1)))


@_jit
def _backward_block(
    surrogate,
    lo,
    hi,
    last_grads,
    z,
    u0,
    v0,
    params,
    inner,
    reset,
    firing,
    chip,
    first_grads,
    grad_params,
):
    grad_spikes, grad_u1, grad_v1 = last_grads
    grad_z, grad_u0, grad_v0 = first_grads
    tau_grad, scale_grad, detach_reset = firing
    time_steps, held, n = grad_spikes.shape[0], z.shape[0] == 1, hi - lo
    params = _spread_all(params, lo, hi, inner)
    sharpness = _ONE / (np.float32(tau_grad) * params[2])
    resets = _resets(reset)
    spiking = (resets, _ZERO if detach_reset else _ONE, np.float32(0.5) * np.float32(scale_grad))
    trace = np.empty((time_steps, n), np.float32)
    h = np.empty(n, np.float32)
    u_before, v_before = h, h
    sums: Any = None
    if grad_params is not None:
        u_trace = np.empty((time_steps + 1, n), np.float32)
        v_before = np.empty(n, np.float32)
        sums = np.zeros((3, n), np.float32)

    # Forward again, u and v in the places where their gradients go afterwards.
    u = _copied(u0, grad_u0, lo, hi)
    v = _copied(v0, grad_v0, lo, hi)
    if grad_params is not None and u0 is not None:
        u_trace[0] = u
    for t in range(time_steps):
        _advance(z[0 if held else t, lo:hi], u, v, params, resets, chip, True, trace[t])
        if grad_params is not None and u0 is not None:
            u_trace[t + 1] = u

    grad_u = _copied(grad_u1, grad_u0, lo, hi)
    grad_v = _copied(grad_v1, grad_v0, lo, hi)
    if held:
        grad_z[0, lo:hi] = _ZERO
    for t in range(time_steps - 1, -1, -1):
        if grad_params is not None:
            if t > 0:
                _reset(trace[t - 1], params[2], resets, v_before)
            else:
                _fill(v_before, v0, lo)
            u_before = u_trace[t]
        out = h if held else grad_z[t, lo:hi]
        v, g = trace[t], grad_spikes[t, lo:hi]
        _retreat(
            surrogate,
            u_before,
            v_before,
            v,
            params,
            sharpness,
            spiking,
            g,
            grad_u,
            grad_v,
            out,
            sums,
        )
        if held:
            for i in range(n):
                grad_z[0, lo + i] += h[i]
    if grad_params is not None:
        for k in range(3):
            _gather(sums[k], lo, inner, grad_params[k])


def _backward_kernel(surrogate):
    """The kernel of one surrogate, which is a constant to it.

    last_grads: grad_spikes (T, M), grad_u1, grad_v1 (M,), the last two None for 0.
    firing: tau_grad, scale_grad, detach_reset.
    Writes first_grads: grad_z (Tz, M), grad_u0, grad_v0 (M,); and, unless it is None,
    grad_params (blocks, 3, size), one row a block, so that no two threads add to the same
    place: current_decay, voltage_decay, threshold; the caller sums over blocks.
    """

    @_parallel_jit
    def cuba_backward(
        last_grads, z, u0, v0, params, inner, reset, firing, chip, first_grads, grad_params
    ):
        time_steps, neurons = last_grads[0].shape
        width = backward_width(time_steps)
        for block in prange((neurons + width - 1) // width):
            lo, hi = block * width, min((block + 1) * width, neurons)
            _backward_block(
                surrogate,
                lo,
                hi,
                last_grads,
                z,
                u0,
                v0,
                params,
                inner,
                reset,
                firing,
                chip,
                first_grads,
                _row(grad_params, block),
            )

    return cuba_backward


# By the surrogate's code in `neuron.surrogate`.
cuba_backward = tuple(_backward_kernel(code) for code in range(3))
