"""The loops of the curve on a CPU; `curve.curve_reference` says what they compute."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from . import registers
from .pointers import floats, small_integers
from .registers import ENTRIES, LANES, interpolate, scale
from .threads import parallel_jit

_HALF = np.float32(0.5)
# Values a thread works on at a time.
_WIDTH = 4096
_jit = numba.njit(error_model="numpy", boundscheck=False)


def forward(
    z: Tensor,
    origin: Tensor,
    width: Tensor,
    values: Tensor,
    levels: int,
    rates: Tensor,
    segment: Tensor,
) -> None:
    """Writes rates and segment, which are contiguous, of z (N, C, ...).

    origin, width (K,) and values (K, cells + 1): one curve for all, or one a channel.
    """
    z, origin, width, values = (x.contiguous() for x in (z, origin, width, values))
    curves, points = values.shape
    places = [x.data_ptr() for x in (z, origin, width, values, rates, segment)]
    if _in_registers(curves, points - 1):
        workspace = torch.zeros(2 * ENTRIES + 3 * LANES, dtype=torch.float32, device="cpu")
        _forward_in_registers(*places, workspace.data_ptr(), z.numel(), points - 1, levels)
    else:
        _forward(*places, z.numel(), curves, points, levels, _inner(z))


def backward(grad: Tensor, segment: Tensor, slopes: Tensor, grad_z: Tensor) -> None:
    """Writes grad_z, contiguous: grad (N, C, ...) times the slope at each segment.

    slopes (K, cells + 2): of one curve for all, or one a channel.
    """
    grad, segment, slopes = (x.contiguous() for x in (grad, segment, slopes))
    curves, segments = slopes.shape
    places = [x.data_ptr() for x in (grad, segment, slopes, grad_z)]
    if _in_registers(curves, segments - 2):
        workspace = torch.zeros(ENTRIES, dtype=torch.float32, device="cpu")
        _backward_in_registers(*places, workspace.data_ptr(), grad.numel(), segments - 2)
    else:
        _backward(*places, grad.numel(), curves, segments, _inner(grad))


def _in_registers(curves: int, cells: int) -> bool:
    return curves == 1 and cells <= ENTRIES and registers.available()


def _inner(z: Tensor) -> int:
    """How many neighbours in memory share a channel, axis 1."""
    return max(math.prod(z.shape[2:]), 1)


# The parallel loops hand addresses on and nothing else: what they wrote through an address numba
# would take for dead, and leave out.


@parallel_jit
def _forward_in_registers(z, origin, width, values, rates, segment, workspace, size, cells, levels):
    steps, few = workspace + 4 * ENTRIES, workspace + 8 * ENTRIES
    _split(values, cells, workspace, steps)
    table = (floats(origin, 1)[0], floats(width, 1)[0], cells, workspace, steps, np.float32(levels))
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        rest = (hi - lo) % LANES
        for i in range(lo, hi - rest, LANES):
            interpolate(z + 4 * i, *table, rates + 4 * i, segment + i)
        if rest:
            _interpolate_few(z, rates, segment, hi - rest, hi, few, *table)


@_jit
def _split(values, cells, left, steps):
    """Tables of the left value of each cell, and of the step to the right one."""
    for k in range(cells):
        value = floats(values, cells + 1)[k]
        floats(left, cells)[k] = value
        floats(steps, cells)[k] = floats(values, cells + 1)[k + 1] - value


@_jit
def _interpolate_few(z, rates, segment, lo, hi, few, origin, width, cells, left, steps, levels):
    """What is left over at the end, from lo up to hi. few: room for all that `LANES` have."""
    few_rates, few_segments, count = few + 4 * LANES, few + 8 * LANES, hi - lo
    floats(few, count)[:] = floats(z, hi)[lo:]
    interpolate(few, origin, width, cells, left, steps, levels, few_rates, few_segments)
    floats(rates, hi)[lo:] = floats(few_rates, count)
    small_integers(segment, hi)[lo:] = small_integers(few_segments, count)


@_jit
def _copy(source, target, count):
    floats(target, count)[:] = floats(source, count)


@parallel_jit
def _backward_in_registers(grad, segment, slopes, grad_z, workspace, size, cells):
    before, behind = floats(slopes, cells + 2)[0], floats(slopes, cells + 2)[cells + 1]
    _copy(slopes + 4, workspace, cells)
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        rest = (hi - lo) % LANES
        for i in range(lo, hi - rest, LANES):
            scale(grad + 4 * i, segment + i, cells, before, workspace, behind, grad_z + 4 * i)
        if rest:
            _scale(grad, segment, slopes, grad_z, hi - rest, hi, 1, cells + 2, 1)


@parallel_jit
def _forward(z, origin, width, values, rates, segment, size, curves, points, levels, inner):
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        _interpolate(
            z, origin, width, values, rates, segment, lo, hi, curves, points, levels, inner
        )


@parallel_jit
def _backward(grad, segment, slopes, grad_z, size, curves, segments, inner):
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        _scale(grad, segment, slopes, grad_z, lo, hi, curves, segments, inner)


@_jit
def _interpolate(z, origin, width, values, rates, segment, lo, hi, curves, points, levels, inner):
    """Loops of one kind of work each: all but the look-up vectorize."""
    cells, grid = np.float32(points - 1), np.float32(levels)
    starts, steps = floats(origin, curves), floats(width, curves)
    tables = floats(values, (curves, points))
    place, part = floats(rates, hi)[lo:], floats(z, hi)[lo:]
    cut = small_integers(segment, hi)[lo:]
    cell = np.empty(hi - lo, np.uint32)  # unsigned: no check for wrap-around
    rest = np.empty(hi - lo, np.float32)
    if curves == 1:
        start, step = starts[0], steps[0]
        for i in range(hi - lo):
            place[i] = (part[i] - start) / step
    else:
        for i in range(hi - lo):
            k = ((lo + i) // inner) % curves
            place[i] = (part[i] - starts[k]) / steps[k]
    for i in range(hi - lo):
        # Written so that NaN falls to the lower end: it must not become an index.
        inside = place[i] if place[i] > 0 else np.float32(0)
        inside = inside if inside < cells else cells
        left = min(np.int32(inside), np.int32(points - 2))
        cell[i] = left
        rest[i] = inside - np.float32(left) if place[i] == place[i] else place[i]
        at = left + np.int32(1) if place[i] < cells else np.int32(points)
        cut[i] = at if place[i] >= 0 else np.int32(0)
    if curves == 1:
        table = tables[0]
        for i in range(hi - lo):
            left_value = table[cell[i]]
            place[i] = left_value + rest[i] * (table[cell[i] + np.uint32(1)] - left_value)
    else:
        for i in range(hi - lo):
            table = tables[((lo + i) // inner) % curves]
            left_value = table[cell[i]]
            place[i] = left_value + rest[i] * (table[cell[i] + np.uint32(1)] - left_value)
    if levels > 0:
        for i in range(hi - lo):
            place[i] = np.floor(place[i] * grid + _HALF) / grid


@_jit
def _scale(grad, segment, slopes, grad_z, lo, hi, curves, segments, inner):
    tables = floats(slopes, (curves, segments))
    from_above, out = floats(grad, hi)[lo:], floats(grad_z, hi)[lo:]
    cut = small_integers(segment, hi)[lo:]
    if curves == 1:
        table = tables[0]
        for i in range(hi - lo):
            out[i] = from_above[i] * table[cut[i]]
    else:
        for i in range(hi - lo):
            out[i] = from_above[i] * tables[((lo + i) // inner) % curves, cut[i]]
