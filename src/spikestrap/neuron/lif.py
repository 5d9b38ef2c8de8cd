"""LIF: a membrane that leaks and takes its input as it comes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from torch import Tensor

from ..kernel.reference import State
from .base import Neuron
from .firing import Firing
from .parameter import (
    ANY,
    DECAY,
    THRESHOLD,
    Bounds,
    Value,
    broadcast,
    check_channels,
    initial,
    register_all,
)


class LIF(Neuron):
    r"""Leaky integrate-and-fire neuron: CUBA with current_decay 1.

    .. math::
        v[t] = (1 - d_v)\, v[t-1] + z[t], \quad s[t] = v[t] > \vartheta,
        \text{ strictly; then the reset of } v

    (Gerstner et al., Neuronal Dynamics, 2014, section 1.3, one Euler step.)

    threshold > 0; voltage_decay in [0, 1]; v_init: the membrane's first value; each a
    number or a tensor (C,). The rest as in `CUBA`.

    >>> import torch
    >>> lif = LIF(threshold=1.0, voltage_decay=0.5)
    >>> lif(torch.full((4, 1, 1), 0.8)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {
        "threshold": THRESHOLD,
        "voltage_decay": DECAY,
        "v_init": ANY,
    }
    threshold: Tensor
    voltage_decay: Tensor
    v_init: Tensor

    def __init__(
        self,
        threshold: Value,
        voltage_decay: Value,
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
            self, learnable, threshold=threshold, voltage_decay=voltage_decay, v_init=v_init
        )

    def init_state(self, z: Tensor) -> State:
        """Membrane v = v_init (N, ...)."""
        check_channels(self, z)
        return (initial(self, z, "v_init"),)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equation above."""
        (v,) = state
        voltage_decay, threshold = broadcast(self, z, "voltage_decay", "threshold")
        spikes, v = self.firing(v * (1 - voltage_decay) + z, threshold)
        return spikes, (v,)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
