"""Blocks with complex weights, for resonators: real spikes to a complex input.

The weighted input is W x with W = A + iB, two layers of the same form, as in lava-dl's
resonate-and-fire blocks. A resonator's rate then depends on two numbers, so these blocks are
trained directly, in Mode.SNN.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SpikestrapError
from .base import Block, Conv, ConvT, Dense, NeuronLike


class ComplexSynapse(nn.Module):
    """Two synapses on one input: (T, N, ...) to complex (T, N, ...).

    >>> import spikestrap as ss
    >>> block = ss.block.rf.ComplexDense(dict(threshold=1.0, period=8.0, decay=0.1), 5, 3)
    >>> block.synapse(torch.rand(4, 2, 5)).dtype
    torch.complex64
    """

    def __init__(self, real: nn.Module, imag: nn.Module) -> None:
        super().__init__()
        self.real, self.imag = real, imag

    def forward(self, x: Tensor) -> Tensor:
        """Complex64; complex128 for float64."""
        real, imag = self.real(x), self.imag(x)
        if real.dtype in (torch.float16, torch.bfloat16):
            real, imag = real.float(), imag.float()
        return torch.complex(real, imag)


def _with_complex_weights(block: Any) -> Any:
    """The block with a complex synapse, and otherwise the same arguments."""

    @wraps(block.__init__)
    def __init__(self: Block, neuron: NeuronLike, *args: Any, **options: Any) -> None:
        block.__init__(self, neuron, *args, **options)
        name, made = type(self).__name__, self.unit.neuron
        if not made.complex_input:
            raise SpikestrapError(
                f"{name}: expected a resonator, which takes complex input; "
                f"got {type(made).__name__}"
            )
        if self.norm is not None:
            raise SpikestrapError(
                f"{name}: norm is for real inputs; expected none beside complex weights"
            )
        # A second block of the same kind, for its synapse alone.
        self.synapse = ComplexSynapse(self.synapse, block(made, *args, **options).synapse)

    doc = f"`{block.__name__}` with complex weights, for a resonator. See the module."
    names = {"__init__": __init__, "__doc__": doc, "__module__": __name__}
    return type(f"Complex{block.__name__}", (block,), names)


ComplexDense = _with_complex_weights(Dense)
ComplexConv = _with_complex_weights(Conv)
ComplexConvT = _with_complex_weights(ConvT)
