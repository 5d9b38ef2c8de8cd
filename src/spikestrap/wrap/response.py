"""A foreign neuron's response to constant inputs, asked outside a pass of its model."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SpikestrapError
from ..evaluating import evaluating
from ..timeaxis import hold
from .adapter import spikes_of
from .find import Found
from .layout import STEP, from_time_first, to_time_first
from .replaced import replaced


def response(found: Found, z: Tensor, time_steps: int) -> Tensor:
    """Rates (N, ...) over so many steps from the neuron's initial state; z (N, ...).

    Its state is as before in the end. Its forward is called, as hooks would take it for a pass.
    """
    forward = {found.name: found.neuron.forward}
    # In eval mode, so that no running statistics inside of it move.
    with evaluating(found.neuron), replaced(found.neuron, [found], forward):
        run = _steps if found.adapter.layout(found.neuron) == STEP else _at_once
        return run(found, z, time_steps)


def _steps(found: Found, z: Tensor, time_steps: int) -> Tensor:
    """One step a call, with the state passed on where the neuron does not keep it."""
    _, neuron, adapter = found
    passes_state = not adapter.states(neuron)
    total, state = torch.zeros_like(z), ()
    for _ in range(time_steps):
        output = neuron.forward(z, *state)
        total = total + spikes_of(output)
        if passes_state and isinstance(output, tuple):
            state = output[1:2]
    return total / time_steps


def _at_once(found: Found, z: Tensor, time_steps: int) -> Tensor:
    """All steps in a call, time where the neuron has it."""
    _, neuron, adapter = found
    layout = adapter.layout(neuron)
    if adapter.steps(neuron, z.shape[0] * time_steps) not in (None, time_steps):
        raise SpikestrapError(f"{found.name!r} takes so many rows for another number of steps")
    inputs = from_time_first(hold(z, time_steps).contiguous(), layout)
    spikes = spikes_of(neuron.forward(inputs))
    return to_time_first(spikes, layout, time_steps).mean(0)
