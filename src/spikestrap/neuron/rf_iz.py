"""RFIzhikevich: a resonator that fires when its imaginary part is above threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from torch import Tensor

from ..kernel.reference import State
from . import resonator
from .base import Neuron
from .firing import Firing
from .parameter import Bounds, Value, broadcast, check_channels, register_all


class RFIzhikevich(Neuron):
    r"""Resonate-and-fire neuron with a threshold on its imaginary part.

    .. math::
        x[t] + i\, y[t] &= (1 - d)\, e^{2 \pi i / P}\, (x[t-1] + i\, y[t-1]) + z[t] \\
        s[t] &= y[t] > \vartheta \text{, strictly; then } x[t] = 0, \; y[t] = \vartheta

    (Izhikevich, Resonate-and-fire neurons, Neural Networks 14, 2001, equations 2 and 3, where
    a spike sets the state to i; lava-dl, slayer.neuron.rf_iz, in floating point.)

    z may be real or complex. threshold > 0; period >= 4 steps is P; decay in [0, 1] is d;
    each a number or a tensor (C,). reset: "zero" is that of the equations, the real part to
    zero and the imaginary part to the threshold; "subtract": y -= threshold; "none". The
    rest as in `CUBA`.

    >>> import torch
    >>> rf = RFIzhikevich(threshold=1.0, period=4.0, decay=0.5)
    >>> z = torch.zeros(4, 1, 1)
    >>> z[0] = 3.0
    >>> rf(z).flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = resonator.BOUNDS
    complex_input = True

    def __init__(
        self,
        threshold: Value,
        period: Value,
        decay: Value,
        *,
        reset: str = "zero",
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        detach_reset: bool = True,
        learnable: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.firing = Firing(reset, surrogate, tau_grad, scale_grad, detach_reset)
        register_all(self, learnable, threshold=threshold, period=period, decay=decay)

    def init_state(self, z: Tensor) -> State:
        """Real and imaginary part x = y = 0, each (N, ...)."""
        check_channels(self, z)
        zero = z.new_zeros(()).expand_as(z)
        return zero, zero

    def step(self, z: Tensor, state: State, imag: Tensor | None = None) -> tuple[Tensor, State]:
        """One step of the equations above; imag (N, ...): the imaginary part of the input."""
        (threshold,) = broadcast(self, z, "threshold")
        x, y = state
        x, y = resonator.rotate(self, x, y, z, imag)
        spikes, _ = self.firing(y, threshold)
        fell = self.firing.seen_by_reset(spikes)
        if self.firing.reset == "zero":
            return spikes, (x - fell * x, y - fell * (y - threshold))
        return spikes, (x, self.firing.fall(y, fell, threshold))

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
