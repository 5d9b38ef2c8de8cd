"""What the operators share in their derivatives."""

from __future__ import annotations

from typing import Any

from ..errors import SpikestrapError


def refuse_second_derivative(ctx: Any, *grads: Any) -> None:
    """The derivative of a backward pass whose first derivative is a stand-in."""
    raise SpikestrapError(
        "a spiking neuron or a transfer curve has no second derivative: its first one is a "
        "surrogate; expected backward() without create_graph=True"
    )
