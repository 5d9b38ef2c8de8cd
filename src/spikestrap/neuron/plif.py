"""PLIF: a LIF neuron that learns its time constant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor

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
    initial,
    register_all,
)


class PLIF(Neuron):
    r"""Parametric leaky integrate-and-fire neuron.

    .. math::
        v[t] = v[t-1] + k\, (z[t] - v[t-1]), \quad k = 1/\tau = \mathrm{sigmoid}(w), \quad
        s[t] = v[t] > \vartheta, \text{ strictly; then the reset of } v

    (Fang et al., Incorporating learnable membrane time constant, ICCV 2021, equations 4 to
    6, resting at 0.) The sigmoid keeps the time constant above 1 step, however w moves.

    w: any number; w = 0 is :math:`\tau = 2` steps, :math:`w = -\log(\tau - 1)` any other.
    It is learnable unless `learnable` says otherwise. threshold > 0; v_init: the membrane's
    first value; each a number or a tensor (C,). The rest as in `CUBA`.

    >>> plif = PLIF(threshold=1.0, w=0.0)
    >>> plif(torch.full((4, 1, 1), 1.5)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    >>> [name for name, _ in plif.named_parameters()]
    ['w']
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {"threshold": THRESHOLD, "w": ANY, "v_init": ANY}

    def __init__(
        self,
        threshold: Value,
        w: Value = 0.0,
        *,
        reset: str = "zero",
        v_init: Value = 0.0,
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        detach_reset: bool = True,
        learnable: Collection[str] = ("w",),
    ) -> None:
        super().__init__()
        self.firing = Firing(reset, surrogate, tau_grad, scale_grad, detach_reset)
        register_all(self, learnable, threshold=threshold, w=w, v_init=v_init)

    def init_state(self, z: Tensor) -> State:
        """Membrane v = v_init (N, ...)."""
        check_channels(self, z)
        return (initial(self, z, "v_init"),)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equation above."""
        (v,) = state
        w, threshold = broadcast(self, z, "w", "threshold")
        spikes, v = self.firing(v + torch.sigmoid(w) * (z - v), threshold)
        return spikes, (v,)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
