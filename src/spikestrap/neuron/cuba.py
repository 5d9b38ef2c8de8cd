"""CUBA-LIF: a current that leaks feeds a membrane that leaks."""

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


class CUBA(Neuron):
    r"""Current-based leaky integrate-and-fire neuron, as on Loihi.

    .. math::
        u[t] &= (1 - d_u)\, u[t-1] + z[t] \\
        v[t] &= (1 - d_v)\, v[t-1] + u[t] \\
        s[t] &= v[t] > \vartheta, \text{ strictly; then the reset of } v

    (Davies et al., Loihi, IEEE Micro 38, 2018, in floating point.)

    threshold > 0; current_decay, voltage_decay in [0, 1]; v_init: the membrane's first
    value. Each is a number, or a tensor (C,): one value for each entry of z's axis 2, the
    one after N. `learnable` names those to train. `reset`, `surrogate`, `tau_grad`,
    `scale_grad`, `detach_reset`: see `Firing`. Raises SpikestrapError out of these ranges.

    >>> import torch
    >>> cuba = CUBA(threshold=1.0, current_decay=0.5, voltage_decay=0.0, reset="subtract")
    >>> cuba(torch.tensor([1.5, 0.0, 0.0, 0.0]).view(4, 1, 1)).flatten().tolist()
    [1.0, 1.0, 0.0, 0.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {
        "threshold": THRESHOLD,
        "current_decay": DECAY,
        "voltage_decay": DECAY,
        "v_init": ANY,
    }
    threshold: Tensor
    current_decay: Tensor
    voltage_decay: Tensor
    v_init: Tensor

    def __init__(
        self,
        threshold: Value,
        current_decay: Value = 1.0,
        voltage_decay: Value = 0.0,
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
            current_decay=current_decay,
            voltage_decay=voltage_decay,
            v_init=v_init,
        )

    def init_state(self, z: Tensor) -> State:
        """Current u = 0 and membrane v = v_init, each (N, ...)."""
        check_channels(self, z)
        return z.new_zeros(()).expand_as(z), initial(self, z, "v_init")

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equations above."""
        u, v = state
        current_decay, voltage_decay, threshold = broadcast(
            self, z, "current_decay", "voltage_decay", "threshold"
        )
        u = u * (1 - current_decay) + z
        v = v * (1 - voltage_decay) + u
        spikes, v = self.firing(v, threshold)
        return spikes, (u, v)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
