"""Threshold and reset: the part that spiking neurons share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..choices import check_choice
from ..errors import SpikestrapError
from .surrogate import get_surrogate, spike

RESETS = ("zero", "subtract", "none")


@dataclass(frozen=True)
class Firing:
    """How a membrane fires and resets.

    reset: "zero" (v = 0), "subtract" (v -= threshold) or "none".
    surrogate, tau_grad, scale_grad: see `neuron.surrogate`.
    detach_reset: whether the reset hides its spike from the gradient.

    >>> import torch
    >>> spikes, v = Firing("subtract")(torch.tensor([0.5, 1.5]), 1.0)
    >>> spikes.tolist(), v.tolist()
    ([0.0, 1.0], [0.5, 0.5])
    """

    reset: str = "zero"
    surrogate: str = "exponential"
    tau_grad: float = 1.0
    scale_grad: float = 1.0
    detach_reset: bool = True

    def __post_init__(self) -> None:
        check_choice("reset", self.reset, RESETS)
        get_surrogate(self.surrogate)
        for name in ("tau_grad", "scale_grad"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise SpikestrapError(f"{name} must be a number > 0, got {value!r}")

    def __call__(self, v: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor]:
        """Spikes of the membrane v (N, ...), and the membrane after the reset.

        threshold: a number, or a tensor that broadcasts against v.
        """
        surrogate = get_surrogate(self.surrogate)
        spikes = spike(v, threshold, surrogate, self.tau_grad, self.scale_grad)
        return spikes, self.fall(v, self.seen_by_reset(spikes), threshold)

    def seen_by_reset(self, spikes: Tensor) -> Tensor:
        """The spikes as they act back on the state: without their gradient, if detached."""
        return spikes.detach() if self.detach_reset else spikes

    def fall(self, v: Tensor, fell: Tensor, threshold: Tensor | float) -> Tensor:
        """The membrane after the reset, where `fell` (as `seen_by_reset` gives it) is 1."""
        if self.reset == "zero":
            return v - fell * v
        if self.reset == "subtract":
            return v - fell * threshold
        return v
