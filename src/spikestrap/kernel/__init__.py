"""Neuron dynamics over time: a plain reference and fused kernels.

`reference.scan` runs any neuron anywhere. A fused kernel runs one kind of neuron with its state
in float32, and gives the reference's spikes to the bit; it is compiled from the neuron's `step`
(`automatic`), for CPUs by LLVM (`compiled`), for GPUs by Triton (`cuda`). `use_backend` forces
the choice, which is otherwise made by itself: fused where it can. `explain` says what it came to.
`events` has the products of spikes with weights.
"""

from .automatic import Explanation, explain
from .backend import BACKENDS, fused_wanted, use_backend

__all__ = ["BACKENDS", "Explanation", "explain", "fused_wanted", "use_backend"]
