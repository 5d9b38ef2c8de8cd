"""Functions whose gradient is that of their input: rounding, clamping, wrapping around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def straight_through(x: Tensor, function: Callable[..., Tensor], *arguments: float) -> Tensor:
    """function(x, *arguments), with the gradient passed straight through to x.

    (Bengio et al., Estimating or propagating gradients through stochastic neurons, 2013.)
    Overridable as torch's functions are, so that a neuron's step can be traced through it.

    >>> x = torch.tensor([0.3, 9.0], requires_grad=True)
    >>> straight_through(x, torch.clamp, 0.0, 1.0).sum().backward(); x.grad.tolist()
    [1.0, 1.0]
    """
    if has_torch_function((x,)):
        traced: Tensor = handle_torch_function(straight_through, (x,), x, function, *arguments)
        return traced
    value: Tensor = _StraightThrough.apply(x, function, arguments)
    return value


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, function: Callable[..., Tensor], arguments: tuple[float, ...]) -> Tensor:
        # Not *arguments: without a gradient torch.compile tells by their number whether x comes
        # first, or a context.
        return function(x, *arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing: the gradient passes."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None, None
