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
from .room import room_for
from .threads import parallel_jit

_HALF = np.float32(0.5)
# Values a thread works on at a time.
_WIDTH = 4096
_jit = numba.njit(error_model="numpy", boundscheck=False)


def forward(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    """Rates and segments of z (N, C, ...).

    origin, width (K,), values (K, cells + 1): one curve for all, or one a channel.
    """
    # float32, whatever torch's default is: Lightning's "bf16-true" changes it.
    rates, segment = room_for(z.shape), room_for(z.shape, torch.uint8)
    z, origin, width, values = (x.contiguous() for x in (z, origin, width, values))
    curves, points = values.shape
    places = [x.data_ptr() for x in (z, origin, width, values, rates, segment)]
    run = _run(z, curves)
    sizes = z.numel(), run, curves, points, levels
    if _in_registers(run, points - 1):
        tables = torch.zeros(curves, 2, ENTRIES, dtype=torch.float32, device="cpu")
        _forward_in_registers(*places, tables.data_ptr(), *sizes)
    else:
        _forward(*places, *sizes)
    return rates, segment


def backward(grad: Tensor, segment: Tensor, slopes: Tensor) -> Tensor:
    """grad (N, C, ...) times the slope at each segment.

    slopes (K, cells + 2): of one curve for all, or one a channel.
    """
    grad_z = room_for(grad.shape)
    grad, segment, slopes = (x.contiguous() for x in (grad, segment, slopes))
    curves, segments = slopes.shape
    places = [x.data_ptr() for x in (grad, segment, slopes, grad_z)]
    run = _run(grad, curves)
    sizes = grad.numel(), run, curves, segments
    if _in_registers(run, segments - 2):
        tables = torch.zeros(curves, ENTRIES, dtype=torch.float32, device="cpu")
        _backward_in_registers(*places, tables.data_ptr(), *sizes)
    else:
        _backward(*places, *sizes)
    return grad_z


def _in_registers(run: int, cells: int) -> bool:
    return run >= LANES and cells <= ENTRIES and registers.available()


def _run(z: Tensor, curves: int) -> int:
    """How many neighbours in memory share a curve: all, or those of a channel, axis 1."""
    return max(z.numel() if curves == 1 else math.prod(z.shape[2:]), 1)


# The parallel loops hand addresses on and nothing else: what they wrote through an address numba
# would take for dead, and leave out.


@parallel_jit
def _forward_in_registers(
    z, origin, width, values, rates, segment, tables, size, run, curves, points, levels
):
    _split(values, tables, curves, points)
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        _interpolate_runs(
            z, origin, width, values, rates, segment, tables, lo, hi, run, curves, points, levels
        )


@parallel_jit
def _backward_in_registers(grad, segment, slopes, grad_z, tables, size, run, curves, segments):
    _inside(slopes, tables, curves, segments)
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        _scale_runs(grad, segment, slopes, grad_z, tables, lo, hi, run, curves, segments)


@parallel_jit
def _forward(z, origin, width, values, rates, segment, size, run, curves, points, levels):
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        _interpolate(z, origin, width, values, rates, segment, lo, hi, run, curves, points, levels)


@parallel_jit
def _backward(grad, segment, slopes, grad_z, size, run, curves, segments):
    for block in prange((size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, size)
        _scale(grad, segment, slopes, grad_z, lo, hi, run, curves, segments)


@_jit
def _split(values, tables, curves, points):
    """Tables of the left value of each cell, and of the step to the right one."""
    knots, parts = floats(values, (curves, points)), floats(tables, (curves, 2, ENTRIES))
    for k in range(curves):
        for cell in range(points - 1):
            parts[k, 0, cell] = knots[k, cell]
            parts[k, 1, cell] = knots[k, cell + 1] - knots[k, cell]


@_jit
def _inside(slopes, tables, curves, segments):
    """Tables of the slope in each cell, without those before and behind."""
    cells = floats(slopes, (curves, segments))[:, 1 : segments - 1]
    floats(tables, (curves, ENTRIES))[:, : segments - 2] = cells


@_jit
def _interpolate_runs(
    z, origin, width, values, rates, segment, tables, lo, hi, run, curves, points, levels
):
    starts, steps, grid = floats(origin, curves), floats(width, curves), np.float32(levels)
    for first, end, k in _runs(lo, hi, run, curves):
        if end - first < LANES:
            _interpolate(
                z, origin, width, values, rates, segment, first, end, run, curves, points, levels
            )
            continue
        left = tables + 8 * ENTRIES * k
        table = (starts[k], steps[k], points - 1, left, left + 4 * ENTRIES, grid)
        for i in range(first, end, LANES):
            at = min(i, end - LANES)  # the last ones overlap those before
            interpolate(z + 4 * at, *table, rates + 4 * at, segment + at)


@_jit
def _scale_runs(grad, segment, slopes, grad_z, tables, lo, hi, run, curves, segments):
    ends = floats(slopes, (curves, segments))
    for first, end, k in _runs(lo, hi, run, curves):
        if end - first < LANES:
            _scale(grad, segment, slopes, grad_z, first, end, run, curves, segments)
            continue
        inside = tables + 4 * ENTRIES * k
        table = (segments - 2, ends[k, 0], inside, ends[k, segments - 1])
        for i in range(first, end, LANES):
            at = min(i, end - LANES)
            scale(grad + 4 * at, segment + at, *table, grad_z + 4 * at)


@_jit
def _runs(lo, hi, run, curves):
    """Neighbours on one curve, from lo up to hi: where they begin and end, and which curve."""
    while lo < hi:
        number = lo // run
        end = min((number + 1) * run, hi)
        yield lo, end, number % curves
        lo = end


@_jit
def _interpolate(z, origin, width, values, rates, segment, lo, hi, run, curves, points, levels):
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
        which = _which(lo, hi, run, curves)
        for i in range(hi - lo):
            place[i] = (part[i] - starts[which[i]]) / steps[which[i]]
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
            table = tables[which[i]]
            left_value = table[cell[i]]
            place[i] = left_value + rest[i] * (table[cell[i] + np.uint32(1)] - left_value)
    if levels > 0:
        for i in range(hi - lo):
            place[i] = np.floor(place[i] * grid + _HALF) / grid


@_jit
def _scale(grad, segment, slopes, grad_z, lo, hi, run, curves, segments):
    tables = floats(slopes, (curves, segments))
    from_above, out = floats(grad, hi)[lo:], floats(grad_z, hi)[lo:]
    cut = small_integers(segment, hi)[lo:]
    if curves == 1:
        table = tables[0]
        for i in range(hi - lo):
            out[i] = from_above[i] * table[cut[i]]
    else:
        which = _which(lo, hi, run, curves)
        for i in range(hi - lo):
            out[i] = from_above[i] * tables[which[i], cut[i]]


@_jit
def _which(lo, hi, run, curves):
    """The curve of each from lo up to hi: counted, as a division takes long."""
    which = np.empty(hi - lo, np.uint32)
    k, end = (lo // run) % curves, run - lo % run
    for i in range(hi - lo):
        if i == end:
            end += run
            k = k + 1 if k + 1 < curves else 0
        which[i] = k
    return which
