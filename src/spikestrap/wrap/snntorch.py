"""snnTorch: one step a call, `spk, mem = lif(cur, mem)`, or `spk = lif(cur)` with init_hidden.

The state also lives in the neuron, so a model may be called step by step either way.
"""

from __future__ import annotations

from typing import Any

import snntorch
import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor

from .adapter import Adapter, Library
from .layout import STEP


def _adapter(*states: str) -> Adapter:
    def output(neuron: Any, rates: Tensor, hidden: Tensor) -> Any:
        if neuron.init_hidden and not neuron.output:
            return rates
        return (rates, *(hidden for _ in states))

    def reset(neuron: Any) -> None:
        # Empty, as after construction: the next call shapes them by its input.
        for name in states:
            setattr(neuron, name, torch.zeros(0, device=neuron.threshold.device))

    return Adapter(lambda _: STEP, output, lambda _: (*states, "reset"), reset, _refuse)


def _refuse(neuron: Any) -> str | None:
    factor = neuron.graded_spikes_factor
    if factor.requires_grad or bool((factor != 1).any()):
        return "its spikes are graded (graded_spikes_factor); a rate needs spikes of 0 and 1"
    if neuron.inhibition:
        return "with inhibition=True a neuron's rate depends on the others', not its input alone"
    return None


LIBRARY = Library(
    root="snntorch",
    neurons={
        snntorch.Leaky: _adapter("mem"),
        snntorch.Synaptic: _adapter("syn", "mem"),
        snntorch.Lapicque: _adapter("mem"),
        snntorch.Alpha: _adapter("syn_exc", "syn_inh", "mem"),
    },
    stateful=(SpikingNeuron, snntorch.LeakyParallel),
)
