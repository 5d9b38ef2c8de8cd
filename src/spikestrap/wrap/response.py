"""A foreign neuron's response to constant inputs, asked outside a pass of its model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..timeaxis import hold
from .find import Found
from .layout import STEP, from_time_first, to_time_first
from .replaced import replaced


def response(found: Found, z: Tensor, time_steps: int) -> Tensor:
    """Rates (N, ...) over so many steps from the neuron's initial state; z (N, ...).

    Its state is as before in the end. Its forward is called, as hooks would take it for a pass.
    """
    with replaced(found.neuron, [found], {found.name: found.neuron.forward}):
        run = _steps if found.adapter.layout(found.neuron) == STEP else _at_once
        return run(found, z, time_steps)


def _steps(found: Found, z: Tensor, time_steps: int) -> Tensor:
    """One step a call, with the state passed on where the neuron does not keep it."""
    _, neuron, adapter = found
    passes_state = adapter.starts(neuron, (z,), {})
    total, state = torch.zeros_like(z), ()
    for _ in range(time_steps):
        output = neuron.forward(z, *state)
        total = total + _spikes(output)
        if passes_state:
            state = output[1:2]
    return total / time_steps


def _at_once(found: Found, z: Tensor, time_steps: int) -> Tensor:
    """All steps in a call, time where the neuron has it."""
    _, neuron, adapter = found
    layout = adapter.layout(neuron)
    inputs = from_time_first(hold(z, time_steps).contiguous(), layout)
    spikes = _spikes(neuron.forward(inputs))
    return to_time_first(spikes, layout, time_steps).mean(0)


def _spikes(output: Any) -> Tensor:
    spikes: Tensor = output[0] if isinstance(output, tuple) else output
    return spikes
