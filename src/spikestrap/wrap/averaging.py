"""Does averaging over time commute with a whole model? By its numbers, once.

`Commutes` names the operation that does not. This finds what no list of operations can: one that
nobody thought of, a step in Python, an output that is not of all time steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import SpikestrapError
from ..evaluating import evaluating
from ..precision import whole
from ..timeaxis import hold, time_mean
from .adapter import Adapter
from .perturbed import perturbed
from .running import Runner
from .unit import Call, firing

# Of the norm; sums come in another order, and a GPU may round factors to ten bits.
_TOLERANCE = 0.01


@dataclass
class _Seen:
    """What came to a neuron, and what it was made to fire: sums over so many steps, (N, ...)."""

    steps: int = 0
    inputs: Tensor | float = 0.0
    spikes: Tensor | float = 0.0
    input_on_means: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def check_averages(runner: Runner, sequence: Tensor, steps: int) -> None:
    """Refuses a model that does something else on mean rates than on spikes, on average.

    It runs in eval mode, with spikes at random in the place of its neurons', and then with the
    means of just those; and with other parameters than it has, for they will be learnt.

    Args:
        sequence: (T, N, ...).
        steps: for how many the run on means holds them.
    """
    seen: dict[str, _Seen] = {}  # in the order in which they are called
    generator = torch.Generator().manual_seed(0)
    length = sequence.shape[0]
    drawn = {
        name: _drawn(name, neuron, adapter, seen, length, generator)
        for name, neuron, adapter in runner.neurons()
    }
    means = {
        name: _means(name, neuron, adapter, seen, steps)
        for name, neuron, adapter in runner.neurons()
    }
    with evaluating(runner.model), perturbed(runner.model), runner.explained(sequence):
        output = runner.logits(sequence, drawn)
        on_means = runner.on_rates(time_mean(sequence), means, steps, length)
    for name, at in seen.items():
        if off := off_by(at.inputs / at.steps, torch.stack(at.input_on_means).mean(0)):
            raise SpikestrapError(
                f"bootstrap: on mean rates, the input of {name!r} is not what it is on spikes, on "
                f"average over time ({off}): something before it does not commute with averaging "
                "over time. Leave what is not linear to the neurons; check=False switches this "
                "check off"
            )
        first, *others = at.input_on_means
        if any(off_by(first, other) for other in others):
            raise SpikestrapError(
                f"bootstrap: the model makes another input of the same one for {name!r} at each "
                "step; a curve takes the mean of all. Make it before the model and pass "
                "(T, N, ...), with time_steps=None; check=False switches this check off"
            )
    if off := off_by(output, on_means):
        raise SpikestrapError(
            "bootstrap: on mean rates, the model's output is not what it is on spikes, on average "
            f"over time ({off}): return the output of each step, or their mean, not that of one "
            "step alone, and let nothing behind the last neuron be nonlinear in its spikes, have a "
            "state of its own, or a weight for each time step; check=False switches this check off"
        )


def _drawn(
    name: str,
    neuron: nn.Module,
    adapter: Adapter,
    seen: dict[str, _Seen],
    steps: int,
    generator: torch.Generator,
) -> Call:
    """Spikes at random, whatever comes."""

    def fire(z: Tensor) -> Tensor:
        spikes = (torch.rand(z.shape, generator=generator) < 0.5).to(z)
        at = seen.setdefault(name, _Seen())
        at.steps += z.shape[0]
        at.inputs = at.inputs + whole(z).sum(0)  # in half precision counts end at 256
        at.spikes = at.spikes + whole(spikes).sum(0)
        return spikes

    return firing(neuron, adapter, steps, fire)


def _means(
    name: str, neuron: nn.Module, adapter: Adapter, seen: dict[str, _Seen], steps: int
) -> Call:
    """The means of the spikes that were drawn."""

    def fire(z: Tensor) -> Tensor:
        at = seen[name]
        at.input_on_means.append(z.mean(0))
        return hold(torch.as_tensor(at.spikes / at.steps).to(z), z.shape[0])

    return firing(neuron, adapter, steps, fire)


def off_by(a: Tensor | float, b: Tensor) -> str:
    """By how much of a's norm b differs from it, readable; empty where by nothing that counts."""
    a = torch.as_tensor(a)
    if a.shape == b.shape:
        tolerance = max(_TOLERANCE, 8 * torch.finfo(b.dtype).eps)
        distance = torch.linalg.vector_norm(a - b)
        if not distance > tolerance * torch.linalg.vector_norm(a):
            return ""
        share = (distance / torch.linalg.vector_norm(a)).item()
        return f"off by {100 * share:.0f} %"
    return f"of shape {tuple(b.shape)}, not {tuple(a.shape)}"
