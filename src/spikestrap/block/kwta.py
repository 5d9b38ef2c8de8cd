"""KWTA: a dense layer in which a few neurons silence the others."""

from __future__ import annotations

from torch import Tensor, nn

from ..counts import whole_number
from ..errors import SpikestrapError, at
from ..neuron import Neuron
from ..neuron.parameter import DECAY, broadcast, register, value_of
from ..synapse import linear
from .base import Block, NeuronLike, split_neuron
from .recurrent import SelfDriven


class Competition(nn.Module):
    r"""The lateral synapse of a k-winners-take-all layer, spikes (N, C) to currents (N, C).

    .. math::
        c_i = \vartheta \Big( a\, s_i - \sum_{j \neq i} s_j + K - \frac{1 + a}{2} \Big)

    (After Majani, Erlanson and Abu-Mostafa, On the k-winners-take-all network, NIPS 1988, whose
    continuous neurons go to -1 or 1; here they are spikes of 0 or 1.) Where K neurons fire, each
    of them gets (1 + a) / 2 thresholds, each other neuron -(1 + a) / 2: the winners stay.

    num_winners is K; self_excitation is a, in [0, 1], learnable; the threshold is the neuron's.

    >>> import torch, spikestrap as ss
    >>> lateral = Competition(ss.neuron.IF(threshold=1.0), 1, 0.5)
    >>> lateral(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).tolist()
    [[0.75, -0.75, -0.75, -0.75]]
    """

    self_excitation: Tensor

    def __init__(self, neuron: Neuron, num_winners: int, self_excitation: float) -> None:
        super().__init__()
        register(self, "self_excitation", self_excitation, DECAY, learnable=True)
        # In a tuple, so that it is not a module of this one as well.
        self.neuron = (neuron,)
        self.num_winners = num_winners

    def forward(self, spikes: Tensor) -> Tensor:
        """See the equation above."""
        (neuron,) = self.neuron
        (threshold,) = broadcast(neuron, spikes, "threshold")
        excitation = value_of(self, "self_excitation", DECAY).to(spikes.dtype)
        others = spikes.sum(1, keepdim=True) - spikes
        rest = self.num_winners - (1 + excitation) / 2
        return threshold * (excitation * spikes - others + rest)


class KWTA(Block):
    """Fully connected, k winners take all: (T, N, in_neurons) to (T, N, out_neurons).

    s[t] = f(W x[t] + c(s[t-1])): at the step after, each spike excites its own neuron by
    self_excitation thresholds (learnable, in [0, 1]) and inhibits all others by one, and a
    constant holds num_winners in balance; see `Competition`. The competition is in the
    dynamics, so num_winners is the usual number of spikes a step, no strict bound; closest
    with reset by subtraction and a small leak, which remember who lost. (lava-dl's
    slayer.block.KWTA has the constant (C - 2 num_winners) / C, with which more winners mean
    fewer spikes.)

    The neuron has a `threshold`. Trained directly: who wins depends on who fired when, so all
    modes but SNN are refused.

    >>> import torch, spikestrap as ss
    >>> block = KWTA(ss.neuron.LIF(threshold=1.0, voltage_decay=0.1), 784, 10, num_winners=1)
    >>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
    torch.Size([4, 8, 10])
    """

    def __init__(
        self,
        neuron: NeuronLike,
        in_neurons: int,
        out_neurons: int,
        num_winners: int,
        self_excitation: float = 0.5,
        *,
        bias: bool = False,
        weight_scale: float = 1.0,
        weight_norm: bool = False,
        count_log: bool = False,
        delay_shift: bool = False,
    ) -> None:
        name = type(self).__name__
        made, options = split_neuron(neuron, self.neuron_type, name)
        with at(name):
            synapse = linear(in_neurons, out_neurons, bias, weight_scale, weight_norm)
        num_winners = whole_number(f"{name}: num_winners", num_winners, 1, out_neurons)
        if "threshold" not in made.bounds:
            raise SpikestrapError(
                f"{name}: expected a neuron with a parameter `threshold`, got {type(made).__name__}"
            )
        lateral = Competition(made, num_winners, self_excitation)
        super().__init__(
            {"neuron": SelfDriven(made, lateral), **options},
            synapse,
            out_neurons,
            count_log=count_log,
            delay_shift=delay_shift,
        )
