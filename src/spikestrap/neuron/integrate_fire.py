"""IF: a membrane that keeps what it gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

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


class IF(Neuron):
    r"""Integrate-and-fire neuron: LIF without a leak.

    .. math::
        v[t] = v[t-1] + z[t], \quad s[t] = v[t] > \vartheta,
        \text{ strictly; then the reset of } v

    (Gerstner et al., Neuronal Dynamics, 2014, section 1.3, without the leak.)

    threshold > 0; v_init: the membrane's first value; each a number or a tensor (C,). With
    reset by subtraction and v_init = threshold / 2 a constant input's rate over T steps is
    its rounding to the next of 0, 1/T, ..., 1 (in thresholds). The rest as in `CUBA`.

    >>> import torch
    >>> rounding = IF(threshold=1.0, reset="subtract", v_init=0.5)
    >>> z = torch.tensor([[[0.1, 0.3, 0.7, 0.9]]])
    >>> rounding(z, time_steps=2).mean(0).flatten().tolist()
    [0.0, 0.5, 0.5, 1.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {"threshold": THRESHOLD, "v_init": ANY}
    threshold: Tensor
    v_init: Tensor

    def __init__(
        self,
        threshold: Value,
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
        register_all(self, learnable, threshold=threshold, v_init=v_init)

    def init_state(self, z: Tensor) -> State:
        """Membrane v = v_init (N, ...)."""
        check_channels(self, z)
        return (initial(self, z, "v_init"),)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equation above."""
        (v,) = state
        (threshold,) = broadcast(self, z, "threshold")
        spikes, v = self.firing(v + z, threshold)
        return spikes, (v,)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
