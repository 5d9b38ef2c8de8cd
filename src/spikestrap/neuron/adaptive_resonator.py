"""The part that adaptive resonators share: all but the step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from torch import Tensor

from ..kernel.reference import State
from . import adaptation, resonator
from .base import Neuron
from .firing import Firing
from .parameter import Bounds, Value, check_channels, initial, register_all


class AdaptiveResonator(Neuron):
    """A neuron with the parameters and the state of `resonator` and of `adaptation`.

    See `AdRF` and `AdRFIzhikevich`, which say when it fires and what it then resets.
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {**resonator.BOUNDS, **adaptation.BOUNDS}
    complex_input = True

    def __init__(
        self,
        threshold: Value,
        threshold_step: Value,
        period: Value,
        decay: Value,
        threshold_decay: Value = 0.1,
        refractory_decay: Value = 0.5,
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
        register_all(
            self,
            learnable,
            threshold=threshold,
            threshold_step=threshold_step,
            period=period,
            decay=decay,
            threshold_decay=threshold_decay,
            refractory_decay=refractory_decay,
        )

    def init_state(self, z: Tensor) -> State:
        """x = y = 0, the threshold at rest and r = 0, each (N, ...)."""
        check_channels(self, z)
        x = y = r = z.new_zeros(()).expand_as(z)
        return x, y, initial(self, z, "threshold"), r

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
