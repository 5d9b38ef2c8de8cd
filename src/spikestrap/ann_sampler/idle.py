"""Channels whose rate was 0, or 1, in all that was sampled, and the gradient that wakes them.

Beyond a curve's ramp there is no slope: a channel whose inputs all lie there would have no
gradient, and stay there. So it has that of a line. All others have nothing of it: what a gradient
asks of a neuron that is silent at some inputs only would change weights that its others need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernel.memory import transformed
from .fit import Array

# Channels of a layer that are told apart, so that state has a fixed size; those behind never idle.
CHANNELS = 4096


def add_activity(changes: Tensor, rate: Tensor) -> None:
    """Counts the rates (N, C, ...) above 0, and those below 1, of each channel in changes (2, ...).

    >>> changes = torch.zeros(2, 4)
    >>> add_activity(changes, torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]])); changes.tolist()
    [[0.0, 1.0, 2.0, 0.0], [2.0, 2.0, 0.0, 0.0]]
    """
    by_channel = rate.transpose(0, 1) if rate.ndim > 1 else rate[None]
    by_channel = by_channel[: changes.shape[1]]
    for row, seen in zip(changes, (by_channel > 0, by_channel < 1), strict=True):
        row[: len(seen)] += seen.flatten(1).sum(1)


def slopes_of_idle(changes: Array, slopes: Array) -> Array:
    """slopes, (1,) or one for each of the first channels, where a channel is idle; elsewhere 0.

    Of changes (2, C) less than one is none, as old ones fade; a channel that was not seen has
    neither kind.
    """
    silent, saturated = changes < 1
    all_slopes = np.resize(slopes, changes.shape[1])
    all_slopes[silent == saturated] = 0
    return all_slopes


def wake(rates: Tensor, z: Tensor, slopes: Tensor) -> Tensor:
    """Rates (N, C, ...) as they are; z of the same shape gets the gradient times slopes more.

    slopes: of so many channels; those behind have 0.

    >>> z = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    >>> wake(torch.zeros(1, 2), z, torch.tensor([0.0, 0.5])).sum().backward(); z.grad.tolist()
    [[0.0, 0.5]]
    """
    channels = z.shape[1] if z.ndim > 1 else 1
    slopes = F.pad(slopes[:channels], (0, max(channels - len(slopes), 0)))
    function = _WakeForwardToo if transformed() else _Wake
    woken: Tensor = function.apply(rates, z, slopes.view(-1, *[1] * (z.ndim - 2)))
    return woken


class _Wake(torch.autograd.Function):
    @staticmethod
    def forward(rates: Tensor, z: Tensor, slopes: Tensor) -> Tensor:
        return rates.clone()  # no view, which the caller could not change in place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slopes,) = ctx.saved_tensors
        return grads[0], grads[0] * slopes, None


class _WakeForwardToo(_Wake):
    """As torch.func's transforms take it; torch.compile takes none with a jvp."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Wake.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (slopes,) = ctx.saved_tensors
        return tangents[0] + tangents[1] * slopes
