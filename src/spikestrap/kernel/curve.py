"""The transfer curve as an activation, `spikestrap::curve`: a table look-up, fused on CPU.

A curve lives on a uniform grid, so that an input finds its cell by one multiplication. The
forward pass interpolates the values and may round to the k / T grid of rates; the backward
pass takes its slope from a table of its own, by the cell, which is kept in one byte.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from .arrays import flat
from .autograd import refuse_second_derivative

_HALF = np.float32(0.5)
# Values a thread works on at a time.
_WIDTH = 4096
_parallel_jit = numba.njit(
    parallel=True, nogil=True, cache=True, error_model="numpy", boundscheck=False
)


def curve(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, slopes: Tensor, levels: int
) -> Tensor:
    """The curve at z (N, C, ...), float32, differentiable with respect to z.

    origin, width (K,), values (K, cells + 1), slopes (K, cells + 2): K curves, one for all
    or one for each of the C channels. levels > 0 rounds to multiples of 1 / levels.
    """
    parts = (z, origin, width, values, slopes, levels)
    if z.device.type == "cpu" and torch.compiler.is_compiling():
        rates, _ = _curve(*parts)
    else:
        # Outside a compiled graph the operator's dispatch would cost as much as its work.
        rates = _Curve.apply(*parts)
    return rates


def curve_reference(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    """The same in plain torch: rates and the cell of each z, from 0 to cells + 1."""
    shape = (-1, *[1] * (z.ndim - 2)) if origin.numel() > 1 else ()
    cells = values.shape[1] - 1
    place = (z - origin.view(shape)) / width.view(shape)
    segment = (place.nan_to_num(nan=-1.0).clamp(-1, cells).floor() + 1).to(torch.uint8)
    inside = place.clamp(0, cells)
    cell = inside.nan_to_num().floor().clamp(max=cells - 1)
    row = torch.arange(origin.numel(), device=z.device).view(shape) * (cells + 1)
    at = cell.long() + row
    left, right = values.flatten()[at], values.flatten()[at + 1]
    rates = left + (inside - cell) * (right - left)
    if levels:
        rates = torch.floor(rates * levels + 0.5) / levels
    return rates, segment


def slope_reference(segment: Tensor, slopes: Tensor) -> Tensor:
    """The backward slope in each cell, in plain torch."""
    shape = (-1, *[1] * (segment.ndim - 2)) if slopes.shape[0] > 1 else ()
    row = torch.arange(slopes.shape[0], device=segment.device).view(shape) * slopes.shape[1]
    return slopes.flatten()[segment.long() + row]


class _Curve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, origin: Tensor, *args: Any) -> Tensor:
        width, values, slopes, levels = args
        if z.device.type == "cpu":
            rates, segment = _run(z, origin, width, values, levels)
        else:
            rates, segment = curve_reference(z, origin, width, values, levels)
        ctx.save_for_backward(segment, slopes)
        return rates

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        segment, slopes = ctx.saved_tensors
        # With a graph to be made of the backward pass, the operator, which refuses the next.
        run = _curve_backward if torch.is_grad_enabled() else _run_backward
        return run(grads[0], segment, slopes), None, None, None, None, None


def _run(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    # float32, whatever torch's default is: Lightning's "bf16-true" changes it.
    rates = torch.empty(z.shape, dtype=torch.float32)
    segment = torch.empty(z.shape, dtype=torch.uint8)
    _forward(
        flat(z),
        origin.numpy(),
        width.numpy(),
        values.numpy(),
        np.float32(levels),
        _inner(z),
        flat(rates),
        flat(segment),
    )
    return rates, segment


def _run_backward(grad: Tensor, segment: Tensor, slopes: Tensor) -> Tensor:
    if grad.device.type != "cpu":
        return grad * slope_reference(segment, slopes)
    grad_z = torch.empty(grad.shape, dtype=torch.float32)
    _backward_kernel(flat(grad), flat(segment), slopes.numpy(), _inner(segment), flat(grad_z))
    return grad_z


@torch.library.custom_op("spikestrap::curve", mutates_args=(), device_types="cpu")
def _curve(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, slopes: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    return _run(z, origin, width, values, levels)


@_curve.register_fake
def _(z: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    rates = torch.empty(z.shape, dtype=torch.float32, device=z.device)
    return rates, torch.empty(z.shape, dtype=torch.uint8, device=z.device)


@torch.library.custom_op("spikestrap::curve_backward", mutates_args=())
def _curve_backward(grad: Tensor, segment: Tensor, slopes: Tensor) -> Tensor:
    return _run_backward(grad, segment, slopes)


@_curve_backward.register_fake
def _(grad: Tensor, segment: Tensor, slopes: Tensor) -> Tensor:
    return torch.empty(grad.shape, dtype=torch.float32, device=grad.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(output[1], inputs[4])
    # No zeros for the gradient of the cell, which has none.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    return _curve_backward(grad, *ctx.saved_tensors), None, None, None, None, None


torch.library.register_autograd(_curve, _backward, setup_context=_save)
torch.library.register_autograd(_curve_backward, refuse_second_derivative)


@_parallel_jit
def _forward(z, origin, width, values, levels, inner, rates, segment):
    curves, points = values.shape
    cells = np.float32(points - 1)
    for block in prange((z.size + _WIDTH - 1) // _WIDTH):
        # Loops of one kind of work each: all but the look-up vectorize.
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, z.size)
        place = rates[lo:hi]
        cell = np.empty(hi - lo, np.uint32)  # unsigned: no check for wrap-around
        rest = np.empty(hi - lo, np.float32)
        part, cut = z[lo:hi], segment[lo:hi]
        if curves == 1:
            start, step = origin[0], width[0]
            for i in range(hi - lo):
                place[i] = (part[i] - start) / step
        else:
            for i in range(hi - lo):
                k = ((lo + i) // inner) % curves
                place[i] = (part[i] - origin[k]) / width[k]
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
            table = values[0]
            for i in range(hi - lo):
                left_value = table[cell[i]]
                place[i] = left_value + rest[i] * (table[cell[i] + np.uint32(1)] - left_value)
        else:
            for i in range(hi - lo):
                table = values[((lo + i) // inner) % curves]
                left_value = table[cell[i]]
                place[i] = left_value + rest[i] * (table[cell[i] + np.uint32(1)] - left_value)
        if levels > 0:
            for i in range(hi - lo):
                place[i] = np.floor(place[i] * levels + _HALF) / levels


@_parallel_jit
def _backward_kernel(grad, segment, slopes, inner, grad_z):
    curves = slopes.shape[0]
    for block in prange((grad.size + _WIDTH - 1) // _WIDTH):
        lo, hi = block * _WIDTH, min((block + 1) * _WIDTH, grad.size)
        if curves == 1:
            table = slopes[0]
            from_above, cut, out = grad[lo:hi], segment[lo:hi], grad_z[lo:hi]
            for i in range(hi - lo):
                out[i] = from_above[i] * table[cut[i]]
        else:
            for i in range(lo, hi):
                grad_z[i] = grad[i] * slopes[(i // inner) % curves, segment[i]]


def _inner(z: Tensor) -> int:
    """How many neighbours in memory share a channel, axis 1."""
    return max(math.prod(z.shape[2:]), 1)
