"""IF: a membrane that keeps what it gets."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from ..kernel import cuba
from ..kernel.reference import State
from .base import Neuron
from .firing import Firing
from .parameter import (
    ANY,
    THRESHOLD,
    Value,
    check_channels,
    check_learnable,
    per_channel,
    register,
    value_of,
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
        check_learnable(self, learnable, ("threshold", "v_init"))
        self.firing = Firing(reset, surrogate, tau_grad, scale_grad, detach_reset)
        register(self, "threshold", threshold, THRESHOLD, "threshold" in learnable)
        register(self, "v_init", v_init, ANY, "v_init" in learnable)

    def init_state(self, z: Tensor) -> State:
        """Membrane v = v_init (N, ...)."""
        check_channels(self, z, {name: getattr(self, name) for name in ("threshold", "v_init")})
        return (per_channel(self.v_init.to(z), z).expand_as(z),)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equation above."""
        (v,) = state
        spikes, v = self.firing(v + z, per_channel(self._threshold(z), z))
        return spikes, (v,)

    def kernel(self, z: Tensor, state: State, time_steps: int) -> tuple[Tensor, State]:
        """The same over all steps at once."""
        (v,) = state
        no_leak = z.new_zeros(())
        threshold, rule = self._threshold(z), self.firing.rule
        spikes, _, v = cuba.run(z, None, v, None, no_leak, threshold, time_steps, rule)
        return spikes, (v,)

    def _threshold(self, z: Tensor) -> Tensor:
        return value_of(self.threshold, THRESHOLD).to(z.dtype)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
