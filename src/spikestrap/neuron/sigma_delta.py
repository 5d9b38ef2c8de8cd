"""Delta and SigmaDelta: neurons that send how much their value changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..choices import check_choice
from ..kernel.reference import State
from .base import Neuron
from .firing import Firing
from .parameter import (
    ANY,
    THRESHOLD,
    Bounds,
    Value,
    broadcast,
    check_channels,
    register_all,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda a: torch.clamp(a, min=0.0),
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "identity": lambda a: a,
}
_REASON = (
    "it sends signed changes of a value, not spikes, and their mean over time is no firing rate"
)


def send_change(
    firing: Firing, a: Tensor, sent: Tensor, threshold: Tensor
) -> tuple[Tensor, Tensor]:
    """The change of a since what was sent, where it reaches the threshold; and what is sent then.

    The gradient goes straight through to the change, and to the threshold by the surrogate.
    """
    change = a - sent
    held = change.detach()
    size = torch.abs(held)
    over, _ = firing(size, threshold)
    reached = over + (size == threshold).to(over.dtype)  # neurons that spike want more
    out = held * reached + (change - held)
    return out, sent + out


class Delta(Neuron):
    r"""Delta encoder: sends how much its input changed, once that reaches a threshold.

    .. math::
        \delta[t] = z[t] - r[t-1], \quad
        y[t] = \delta[t] \text{ if } |\delta[t]| \geq \vartheta \text{, else } 0, \quad
        r[t] = r[t-1] + y[t]

    (lava-dl, slayer.axon.Delta, and Lava, lava.proc.sdn; r is what its receivers have summed
    up.) So the sum of what it sent is always within the threshold of its input. threshold > 0,
    a number or a tensor (C,). The gradient is straight-through:
    :math:`\partial y / \partial \delta = 1`; the threshold's is by the surrogate. There is no
    reset, and no bootstrapping.

    >>> delta = Delta(threshold=0.5)
    >>> delta(torch.tensor([1.0, 1.25, 1.5, 1.5]).view(4, 1, 1)).flatten().tolist()
    [1.0, 0.0, 0.5, 0.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {"threshold": THRESHOLD}
    not_bootstrappable = _REASON

    def __init__(
        self,
        threshold: Value,
        *,
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        learnable: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.firing = Firing("none", surrogate, tau_grad, scale_grad)
        register_all(self, learnable, threshold=threshold)

    def init_state(self, z: Tensor) -> State:
        """Nothing sent: r = 0 (N, ...)."""
        check_channels(self, z)
        return (torch.zeros_like(z),)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equations above."""
        (sent,) = state
        (threshold,) = broadcast(self, z, "threshold")
        out, sent = send_change(self.firing, z, sent, threshold)
        return out, (sent,)


class SigmaDelta(Neuron):
    r"""Sigma-delta neuron: sums up changes, and sends the change of its activation.

    .. math::
        \sigma[t] &= \sigma[t-1] + z[t], \quad a[t] = f(\sigma[t] + b), \quad
        \delta[t] = a[t] - r[t-1] \\
        y[t] &= \delta[t] \text{ if } |\delta[t]| \geq \vartheta \text{, else } 0,
        \quad r[t] = r[t-1] + y[t]

    (lava-dl, slayer.neuron.sigma_delta, without its bias of zero; O'Connor and Welling, Sigma
    delta quantized networks, ICLR 2017.) Its input is the weighted changes that other
    `Delta` and `SigmaDelta` neurons send, so :math:`\sigma` is what an ordinary network has
    before the activation, up to the thresholds.

    activation: "relu", "sigmoid" or "identity"; threshold > 0; bias, inside the activation;
    each a number or a tensor (C,). Gradients as in `Delta`. There is no reset, and no
    bootstrapping: train it directly.

    >>> neuron = SigmaDelta(threshold=0.5)
    >>> z = torch.tensor([1.0, 0.25, 0.5, -3.0]).view(4, 1, 1)      # sums 1, 1.25, 1.75, -1.25
    >>> neuron(z).flatten().tolist()
    [1.0, 0.0, 0.75, -1.75]
    """

    threshold: Tensor

    bounds: ClassVar[Mapping[str, Bounds]] = {"threshold": THRESHOLD, "bias": ANY}
    not_bootstrappable = _REASON

    def __init__(
        self,
        threshold: Value,
        *,
        activation: str = "relu",
        bias: Value = 0.0,
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        learnable: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_choice("SigmaDelta: activation", activation, ACTIVATIONS)
        self.activation = activation
        self.firing = Firing("none", surrogate, tau_grad, scale_grad)
        register_all(self, learnable, threshold=threshold, bias=bias)

    def init_state(self, z: Tensor) -> State:
        """Nothing summed up, nothing sent: sigma = r = 0, each (N, ...)."""
        check_channels(self, z)
        return torch.zeros_like(z), torch.zeros_like(z)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equations above."""
        total, sent = state
        threshold, bias = broadcast(self, z, "threshold", "bias")
        total = total + z
        a = ACTIVATIONS[self.activation](total + bias)
        out, sent = send_change(self.firing, a, sent, threshold)
        return out, (total, sent)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"
