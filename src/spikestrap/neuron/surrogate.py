"""Surrogate gradients: what the backward pass takes for the derivative of a spike.

With x = (v - threshold) / tau and tau = tau_grad * threshold the derivative is

    d spike / d v = scale_grad / (2 tau) * h(x),    h(0) = 1,  integral of h = 2,

so that `scale_grad` is the area under it and `tau_grad` its width in thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import SpikestrapError


@dataclass(frozen=True)
class Surrogate:
    """A surrogate derivative h and, for checks by finite differences, its integral.

    `integral` runs from 0 to 2.
    """

    name: str
    h: Callable[[Tensor], Tensor]
    integral: Callable[[Tensor], Tensor]


_HALF_PI = math.pi / 2

SURROGATES = {
    surrogate.name: surrogate
    for surrogate in (
        # Shrestha and Orchard, SLAYER, NeurIPS 2018.
        Surrogate(
            "exponential",
            lambda x: torch.exp(-x.abs()),
            lambda x: 1 + x.sign() * (1 - torch.exp(-x.abs())),
        ),
        # Zenke and Ganguli, SuperSpike, Neural Computation 30, 2018.
        Surrogate(
            "fast_sigmoid",
            lambda x: 1 / (1 + x.abs()) ** 2,
            lambda x: 1 + x / (1 + x.abs()),
        ),
        # Fang et al., Incorporating Learnable Membrane Time Constant, ICCV 2021.
        Surrogate(
            "arctan",
            lambda x: 1 / (1 + (_HALF_PI * x) ** 2),
            lambda x: 1 + torch.atan(_HALF_PI * x) / _HALF_PI,
        ),
    )
}


def get_surrogate(name: str) -> Surrogate:
    """The surrogate of that name.

    >>> get_surrogate("arctan").h(torch.tensor(0.0)).item()
    1.0
    """
    try:
        return SURROGATES[name]
    except (KeyError, TypeError):
        known = ", ".join(SURROGATES)
        raise SpikestrapError(f"surrogate must be one of {known}; got {name!r}") from None


class _Spike(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(over: Tensor, tau: Tensor, surrogate: Surrogate, scale: float) -> Tensor:
        return (over > 0).to(over.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        over, tau, ctx.surrogate, ctx.scale = inputs
        ctx.save_for_backward(over, tau)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        over, tau = ctx.saved_tensors
        slope = ctx.scale / (2 * tau) * ctx.surrogate.h(over / tau)
        return grads[0] * slope, None, None, None


def fire(over: Tensor, tau: Tensor, surrogate: Surrogate, scale: float) -> Tensor:
    """1 where over > 0, else 0; overridable, so that a step can be traced through it."""
    if has_torch_function((over, tau)):
        spikes: Tensor = handle_torch_function(fire, (over, tau), over, tau, surrogate, scale)
        return spikes
    spikes = _Spike.apply(over, tau, surrogate, scale)
    return spikes


def spike(
    v: Tensor,
    threshold: Tensor | float,
    surrogate: Surrogate,
    tau_grad: float = 1.0,
    scale_grad: float = 1.0,
) -> Tensor:
    """1 where v > threshold, strictly, else 0; differentiable by the surrogate.

    v: membrane, any shape; threshold: a number, or broadcasts against it. The gradient goes to
    both.

    >>> v = torch.tensor([0.9, 1.0, 1.1], requires_grad=True)
    >>> s = spike(v, torch.tensor(1.0), get_surrogate("fast_sigmoid"))
    >>> s.tolist()
    [0.0, 0.0, 1.0]
    >>> s.sum().backward(); v.grad[1].item()
    0.5
    """
    if not isinstance(threshold, Tensor):
        threshold = torch.full((), threshold, dtype=v.dtype, device=v.device)
    tau = tau_grad * threshold.detach()
    return fire(v - threshold, tau, surrogate, scale_grad)
