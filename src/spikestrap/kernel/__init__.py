"""Neuron dynamics over time: a plain reference and fused kernels.

`reference.scan` runs any neuron anywhere. A fused kernel runs one kind of neuron in float32
on a CPU, and gives the reference's spikes to the bit; it is compiled from the neuron's `step`
(`automatic`). `use_backend` forces the choice, which is otherwise made by itself: fused where
it can. `explain` says what it came to. `events` has the products of spikes with weights.
"""

from .automatic import Explanation, explain
from .backend import BACKENDS, fused_wanted, use_backend

__all__ = ["BACKENDS", "Explanation", "explain", "fused_wanted", "use_backend"]
