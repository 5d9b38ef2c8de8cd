"""RF: a resonator that fires when its phase passes zero above threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from torch import Tensor

from ..kernel.reference import State
from . import resonator
from .base import Neuron
from .firing import Firing
from .parameter import Bounds, Value, broadcast, check_channels, register_all


class RF(Neuron):
    r"""Resonate-and-fire neuron with a phase threshold.

    .. math::
        x[t] + i\, y[t] &= (1 - d)\, e^{2 \pi i / P}\, (x[t-1] + i\, y[t-1]) + z[t] \\
        s[t] &= x[t] > \vartheta \text{, strictly, and } y[t-1] < 0 \leq y[t]

    (Orchard et al., Efficient neuromorphic signal processing with Loihi 2, SiPS 2021;
    lava-dl, slayer.neuron.rf, in floating point; after Izhikevich, Neural Networks 14, 2001.)
    It answers inputs that swing with its period and is deaf to constant ones.

    z may be real or complex. threshold > 0; period >= 4 steps is P; decay in [0, 1] is d;
    each a number or a tensor (C,). reset: "none" as in the sources, "zero" (x = y = 0) or
    "subtract" (x -= threshold). The surrogate goes through x; at steps where the phase does
    not pass 0 a spike has no gradient. The rest as in `CUBA`.

    >>> import torch
    >>> rf = RF(threshold=1.0, period=8.0, decay=0.1)
    >>> z = torch.cos(2 * torch.pi / 8 * torch.arange(25.0)).view(25, 1, 1)
    >>> rf(z).flatten().nonzero().flatten().tolist(), rf(torch.ones_like(z)).sum().item()
    ([8, 16, 24], 0.0)
    """

    bounds: ClassVar[Mapping[str, Bounds]] = resonator.BOUNDS
    complex_input = True

    def __init__(
        self,
        threshold: Value,
        period: Value,
        decay: Value,
        *,
        reset: str = "none",
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
        x, y_before = state
        (threshold,) = broadcast(self, z, "threshold")
        x, y = resonator.rotate(self, x, y_before, z, imag)
        spikes, _ = self.firing(x, threshold)
        spikes = resonator.crosses(spikes, y_before, y)
        fell = self.firing.seen_by_reset(spikes)
        if self.firing.reset == "zero":
            y = y - fell * y
        return spikes, (self.firing.fall(x, fell, threshold), y)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
