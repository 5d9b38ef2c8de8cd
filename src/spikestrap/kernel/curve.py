"""The transfer curve as an activation, `spikestrap::curve`: a table look-up, fused on CPU.

A curve lives on a uniform grid, so that an input finds its cell by one division. The forward
pass interpolates the values and may round to the k / T grid of rates; the backward pass takes
its slope from a table of its own, by the cell, which is kept in one byte.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import curve_loops
from .autograd import refuse_second_derivative
from .memory import in_memory, transformed

_NO_GRADS = (None,) * 5  # of all arguments but z


def curve(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, slopes: Tensor, levels: int | Tensor
) -> Tensor:
    """The curve at z (N, C, ...), float32, differentiable with respect to z.

    origin, width (K,), values (K, cells + 1), slopes (K, cells + 2), before the first cell, in
    each and behind the last: K curves, one for all or one for each of the C channels. levels > 0
    rounds to multiples of 1 / levels; where a transform of torch.func batches it, a tensor ().
    """
    parts = (z, origin, width, values, slopes, levels)
    if transformed():
        rates, _ = _PlainCurve.apply(*parts)
    elif z.device.type == "cpu" and not in_memory(*parts[:5]):
        rates, _ = _curve(*parts)
    else:
        # Where it need not be seen, the operator's dispatch would cost as much as its work.
        rates = _Curve.apply(*parts)
    return rates


def curve_reference(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, levels: int | Tensor
) -> tuple[Tensor, Tensor]:
    """The same in plain torch: rates, and the segment of each z, from 0 to cells + 1."""
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
    if isinstance(levels, Tensor) or levels:
        rates = torch.floor(rates * levels + 0.5) / levels
    return rates, segment


def slope_reference(segment: Tensor, slopes: Tensor) -> Tensor:
    """The slope in each segment, in plain torch."""
    curves, segments = slopes.shape
    shape = (-1, *[1] * (segment.ndim - 2)) if curves > 1 else ()
    row = torch.arange(curves, device=segment.device).view(shape)
    return slopes.flatten()[row * segments + segment.long()]


class _Curve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, *args: Any) -> Tensor:
        *grids, slopes, levels = args
        run: Any = curve_loops.forward if z.device.type == "cpu" else curve_reference
        rates, segment = run(z, *grids, levels)
        ctx.save_for_backward(segment, slopes)
        return rates

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        segment, slopes = ctx.saved_tensors
        # With a graph to be made of the backward pass, the operator, which refuses the next.
        quick = in_memory(*grads[:1]) and not torch.is_grad_enabled()
        run = _run_backward if quick else _curve_backward
        return run(grads[0], segment, slopes), *_NO_GRADS


class _PlainCurve(torch.autograd.Function):
    """The reference as torch.func's transforms take it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        origin, width, values, _, levels = args
        return curve_reference(z, origin, width, values, levels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        segment, slopes = output[1], inputs[4]
        ctx.mark_non_differentiable(segment)
        ctx.save_for_backward(segment, slopes)
        ctx.save_for_forward(segment, slopes)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _PlainSlope.apply(grads[0], *ctx.saved_tensors), *_NO_GRADS

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0] * slope_reference(*ctx.saved_tensors), None


class _PlainSlope(torch.autograd.Function):
    """Its backward pass, which has no derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, segment: Tensor, slopes: Tensor) -> Tensor:
        return grad * slope_reference(segment, slopes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing."""

    backward = staticmethod(refuse_second_derivative)


def _run_backward(grad: Tensor, segment: Tensor, slopes: Tensor) -> Tensor:
    if grad.device.type != "cpu":
        return grad * slope_reference(segment, slopes)
    return curve_loops.backward(grad, segment, slopes)


@torch.library.custom_op("spikestrap::curve", mutates_args=(), device_types="cpu")
def _curve(
    z: Tensor, origin: Tensor, width: Tensor, values: Tensor, slopes: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    return curve_loops.forward(z, origin, width, values, levels)


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
    # No zeros for the gradient of the segment, which has none.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    return _curve_backward(grad, *ctx.saved_tensors), *_NO_GRADS


torch.library.register_autograd(_curve, _backward, setup_context=_save)
torch.library.register_autograd(_curve_backward, refuse_second_derivative)
