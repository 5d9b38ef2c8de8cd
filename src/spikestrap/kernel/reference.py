"""The plain reference: a neuron's `step`, scanned over time in torch arithmetic.

Every fused kernel is held against this one. It runs any neuron, on any device, in any
precision, and autograd goes through it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
Step = Callable[..., tuple[Tensor, State]]


def scan(
    step: Step, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    """Runs `step(z, state, *extra)` over time.

    inputs: z and the extras, each (T, N, ...), or (1, N, ...) if held over `time_steps` steps.
    Returns the spikes (T, N, ...) and the state after the last step.

    >>> count = lambda z, state: (z + state[0], (state[0] + 1,))
    >>> out, state = scan(count, (torch.zeros(1, 2),), (torch.zeros(2),), time_steps=3)
    >>> out[:, 0].tolist(), state[0].tolist()
    ([0.0, 1.0, 2.0], [3.0, 3.0])
    """
    spikes = []
    for t in range(time_steps):
        z, *extra = (x[t if x.shape[0] > 1 else 0] for x in inputs)
        s, state = step(z, state, *extra)
        spikes.append(s)
    return torch.stack(spikes), state
