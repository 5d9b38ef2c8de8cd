"""Recurrent: a dense layer that hears its own spikes of the step before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..counts import whole_number
from ..errors import at
from ..kernel.reference import State
from ..neuron import Neuron
from ..quantize import Quantizer
from ..synapse import linear
from .base import Block, NeuronLike, split_neuron
from .delay import Delay


class SelfDriven(Neuron):
    r"""Neurons whose input has, besides z, what a synapse R makes of their last spikes.

    .. math::
        s[t] = f(z[t] + R\, s[t-1]), \quad s[-1] = 0

    The last spikes are part of the state, behind those of the neuron f.

    >>> import spikestrap as ss
    >>> keep = nn.Identity()                                  # each excites itself
    >>> driven = SelfDriven(ss.neuron.LIF(threshold=1.0, voltage_decay=1.0), keep)
    >>> z = torch.tensor([1.5, 0.5, 0.5, -0.5, 0.5]).view(5, 1, 1)
    >>> driven(z).flatten().tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0]
    """

    not_bootstrappable = (
        "it hears its own last spikes, so its rate is no function of its mean input"
    )

    def __init__(self, neuron: Neuron, synapse: nn.Module) -> None:
        super().__init__()
        self.neuron, self.synapse = neuron, synapse
        self.quantizer: Quantizer | None = None  # of the synapse; see `Recurrent.quantize`

    def init_state(self, z: Tensor) -> State:
        """That of the neuron, and no spikes (N, ...)."""
        return *self.neuron.init_state(z), torch.zeros_like(z)

    def extra(self, z: Tensor, time_steps: int) -> tuple[Tensor, ...]:
        """That of the neuron."""
        return self.neuron.extra(z, time_steps)

    def step(self, z: Tensor, state: State, *extra: Tensor) -> tuple[Tensor, State]:
        """One step of the equation above."""
        *inner, last = state
        if self.quantizer is not None:
            back = self.quantizer(self.synapse, None, last)
        else:
            weight = next(self.synapse.parameters(), last)
            back = self.synapse(last.to(weight.dtype)).to(z.dtype)
        spikes, following = self.neuron.step(z + back, tuple(inner), *extra)
        return spikes, (*following, spikes)


class Recurrent(Block):
    """Fully connected, and to itself: (T, N, in_neurons) to (T, N, out_neurons).

    s[t] = f(W x[t] + R s[t-1]), with R (out_neurons, out_neurons) without bias (lava-dl,
    slayer.block.Recurrent). delay: an axonal delay of its output, learnable, of up to so
    many steps a neuron; R hears the spikes undelayed. Trained directly: what it sends is not
    a function of the mean of what it gets, so all modes but SNN are refused.

    >>> import spikestrap as ss
    >>> block = Recurrent(ss.neuron.LIF(threshold=1.0, voltage_decay=0.1), 784, 10, delay=2)
    >>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
    torch.Size([4, 8, 10])
    """

    def __init__(
        self,
        neuron: NeuronLike,
        in_neurons: int,
        out_neurons: int,
        *,
        bias: bool = False,
        weight_scale: float = 1.0,
        weight_norm: bool = False,
        delay: int = 0,
        count_log: bool = False,
        delay_shift: bool = False,
    ) -> None:
        name = type(self).__name__
        delay = whole_number(f"{name}: delay", delay, 0)
        made, options = split_neuron(neuron, self.neuron_type, name)
        with at(name):
            back = linear(out_neurons, out_neurons, False, weight_scale, weight_norm)
            synapse = linear(in_neurons, out_neurons, bias, weight_scale, weight_norm)
        super().__init__(
            {"neuron": SelfDriven(made, back), **options},
            synapse,
            out_neurons,
            count_log=count_log,
            delay_shift=delay_shift,
        )
        if delay:
            self.delay = Delay(out_neurons, delay, learnable=True)

    def quantize(self, bits: int = 8) -> Quantizer:
        """See `Block.quantize`; the weights R are on a grid of their own."""
        driven = self.unit.neuron
        assert isinstance(driven, SelfDriven)
        self.unit.neuron = driven.neuron
        try:
            quantizer = super().quantize(bits)
            driven.neuron, driven.quantizer = self.unit.neuron, Quantizer(bits)
        finally:
            self.unit.neuron = driven
        return quantizer
