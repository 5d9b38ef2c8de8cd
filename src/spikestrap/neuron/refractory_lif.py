"""RefractoryLIF: silent for some steps after each spike."""

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
    COUNT,
    DECAY,
    THRESHOLD,
    Bounds,
    Value,
    broadcast,
    check_channels,
    initial,
    register_all,
)


class RefractoryLIF(Neuron):
    r"""Leaky integrate-and-fire neuron with an absolute refractory time.

    .. math::
        q[t-1] = 0:\quad & v[t] = (1 - d_v)\, v[t-1] + z[t], \quad s[t] = v[t] > \vartheta,
        \text{ strictly; then the reset of } v \text{, and } q[t] = R\, s[t] \\
        q[t-1] > 0:\quad & v[t] = v[t-1], \quad s[t] = 0, \quad q[t] = q[t-1] - 1

    (Gerstner et al., Neuronal Dynamics, 2014, section 1.3; Norse's LIFRefrac counts alike.)
    For R = refractory_steps steps after a spike the neuron neither fires nor listens.

    threshold > 0; voltage_decay in [0, 1]; refractory_steps: a whole number >= 0, not
    learnable; v_init: the membrane's first value; each a number or a tensor (C,). The rest
    as in `CUBA`.

    >>> lif = RefractoryLIF(threshold=1.0, voltage_decay=0.0, refractory_steps=2)
    >>> lif(torch.full((7, 1, 1), 1.5)).flatten().tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {
        "threshold": THRESHOLD,
        "voltage_decay": DECAY,
        "refractory_steps": COUNT,
        "v_init": ANY,
    }

    def __init__(
        self,
        threshold: Value,
        voltage_decay: Value,
        refractory_steps: Value = 1,
        *,
        reset: str = "zero",
        v_init: Value = 0.0,
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        detach_reset: bool = True,
        learnable: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.firing = Firing(reset, surrogate, tau_grad, scale_grad, detach_reset)
        register_all(
            self,
            learnable,
            threshold=threshold,
            voltage_decay=voltage_decay,
            refractory_steps=refractory_steps,
            v_init=v_init,
        )

    def init_state(self, z: Tensor) -> State:
        """Membrane v = v_init and nothing left to wait, each (N, ...)."""
        check_channels(self, z)
        return initial(self, z, "v_init"), torch.zeros_like(z)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equations above."""
        v, wait = state
        voltage_decay, threshold = broadcast(self, z, "voltage_decay", "threshold")
        (refractory_steps,) = broadcast(self, z, "refractory_steps")
        listens = wait <= 0
        spikes, after = self.firing(v * (1 - voltage_decay) + z, threshold)
        spikes = torch.where(listens, spikes, 0.0)
        v = torch.where(listens, after, v)
        wait = torch.where(spikes > 0, refractory_steps, torch.clamp(wait - 1, min=0.0))
        return spikes, (v, wait)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
