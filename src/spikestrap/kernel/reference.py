"""The plain reference: a neuron's `step`, scanned over time in torch arithmetic.

Every fused kernel is held against this one. It runs any neuron, on any device, in any
precision, and autograd goes through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import SpikestrapError

State = tuple[Tensor, ...]
Step = Callable[..., tuple[Tensor, State]]


def scan(
    step: Step,
    inputs: tuple[Tensor, ...],
    state: State,
    time_steps: int,
    checkpoint_steps: int | None = None,
) -> tuple[Tensor, State]:
    """Runs `step(z, state, *extra)` over time.

    inputs: z and the extras, each (T, N, ...), or (1, N, ...) if held over `time_steps` steps.
    checkpoint_steps: where gradients are wanted, only the state after every so many steps is
    kept, and the backward pass runs the steps in between again (Chen et al., Training deep
    nets with sublinear memory cost, 2016); None keeps what each step computes.
    Returns the spikes (T, N, ...) and the state after the last step.

    >>> count = lambda z, state: (z + state[0], (state[0] + 1,))
    >>> out, state = scan(count, (torch.zeros(1, 2),), (torch.zeros(2),), time_steps=3)
    >>> out[:, 0].tolist(), state[0].tolist()
    ([0.0, 1.0, 2.0], [3.0, 3.0])
    """
    if checkpoint_steps is None or checkpoint_steps >= time_steps or not torch.is_grad_enabled():
        return _scan(step, inputs, state, time_steps)

    def run(steps: int, *tensors: Tensor) -> tuple[Tensor, State]:
        return _scan(step, tensors[: len(inputs)], tensors[len(inputs) :], steps)

    lengths = [checkpoint_steps] * (time_steps // checkpoint_steps)
    if time_steps % checkpoint_steps:
        lengths.append(time_steps % checkpoint_steps)
    # Slices of their own would each have a gradient as long as the whole.
    parts = [x.split(lengths) if x.shape[0] > 1 else (x,) * len(lengths) for x in inputs]
    spikes = []
    for steps, *chunk in zip(lengths, *parts, strict=True):
        s, state = checkpoint(run, steps, *chunk, *state, use_reentrant=False)
        spikes.append(s)
    return torch.cat(spikes), state


def _scan(
    step: Step, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    spikes = []
    for t in range(time_steps):
        z, *extra = (x[t if x.shape[0] > 1 else 0] for x in inputs)
        s, after = step(z, state, *extra)
        if t == 0:
            _check(s, after, z, state)
        state = after
        spikes.append(s)
    return torch.stack(spikes), state


def _check(spikes: Any, after: Any, z: Tensor, before: State) -> None:
    """What a step returned; a state that is no tuple would be taken for one of its samples."""
    if not isinstance(after, tuple | list) or len(after) != len(before):
        got = type(after).__name__
        if isinstance(after, tuple | list):
            got = f"a {got} of {len(after)}"
        raise SpikestrapError(
            f"step: expected (spikes, state) with a tuple of {len(before)} tensors for the next "
            f"state, as init_state gives them, got {got}"
        )
    if spikes.shape != z.shape:
        raise SpikestrapError(
            f"step: expected spikes shaped like z, {tuple(z.shape)}, got {tuple(spikes.shape)}"
        )
