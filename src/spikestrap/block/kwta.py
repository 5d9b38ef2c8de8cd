"""KWTA: a dense layer in which a few neurons silence the others."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import SpikestrapError
from ..neuron import Neuron
from ..neuron.parameter import DECAY, broadcast, register, value_of
from ..synapse import linear
from .base import Block, NeuronLike, split_neuron
from .recurrent import SelfDriven


class Competition(nn.Module):
    r"""The lateral synapse of a k-winners-take-all layer, spikes (N, C) to currents (N, C).

    .. math::
        c_i = a\, s_i - \sum_{j \neq i} s_j + \vartheta\, (C - 2K) / C

    num_winners is K; self_excitation is a, in [0, 1], learnable; the threshold is the neuron's.

    >>> import torch, spikestrap as ss
    >>> lateral = Competition(ss.neuron.IF(threshold=1.0), 4, 1, 0.5)
    >>> lateral(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).tolist()
    [[1.0, -0.5, -0.5, -0.5]]
    """

    self_excitation: Tensor

    def __init__(
        self, neuron: Neuron, channels: int, num_winners: int, self_excitation: float
    ) -> None:
        super().__init__()
        register(self, "self_excitation", self_excitation, DECAY, learnable=True)
        # In a tuple, so that it is not a module of this one as well.
        self.neuron = (neuron,)
        self.share = (channels - 2 * num_winners) / channels

    def forward(self, spikes: Tensor) -> Tensor:
        """See the equation above."""
        (neuron,) = self.neuron
        (threshold,) = broadcast(neuron, spikes, "threshold")
        excitation = value_of(self.self_excitation, DECAY).to(spikes.dtype)
        inhibition = spikes.sum(1, keepdim=True)
        return (1 + excitation) * spikes - inhibition + self.share * threshold


class KWTA(Block):
    """Fully connected, k winners take all: (T, N, in_neurons) to (T, N, out_neurons).

    Each spike excites its own neuron and inhibits all others by 1 at the next step; a
    constant current favours num_winners of them (lava-dl, slayer.block.KWTA):
    s[t] = f(W x[t] + R s[t-1] + threshold (C - 2K) / C), where R has self_excitation, a
    learnable number in [0, 1], on its diagonal and -1 elsewhere. The competition is in the
    dynamics: num_winners steers how many fire, it is no strict bound at each step.

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
        if not isinstance(num_winners, int) or not 1 <= num_winners <= out_neurons:
            raise SpikestrapError(
                f"{name}: num_winners must be a whole number from 1 to out_neurons = "
                f"{out_neurons}, got {num_winners!r}"
            )
        if "threshold" not in made.bounds:
            raise SpikestrapError(
                f"{name}: expected a neuron with a parameter `threshold`, got {type(made).__name__}"
            )
        lateral = Competition(made, out_neurons, num_winners, self_excitation)
        super().__init__(
            {"neuron": SelfDriven(made, lateral), **options},
            linear(in_neurons, out_neurons, bias, weight_scale, weight_norm),
            out_neurons,
            count_log=count_log,
            delay_shift=delay_shift,
        )
