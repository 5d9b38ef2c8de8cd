"""The same inside torch.compile: a compiled kernel in the compiler's graph.

Dynamo, the compiler's first stage, cannot follow a trace, which goes by the identity of
tensors. So for Dynamo a trace is one call; the stages behind it see the operator and what
is computed from parameters. Dynamo runs the step as well, in vain but for its guards: where
what the step reads changes, it must compile anew.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.stateless import _reparametrize_module

from ..precision import whole
from ..random_state import random_state_kept
from . import backend
from .backend import check_not_forced
from .reference import State, scan
from .trace import trace

if TYPE_CHECKING:
    from ..neuron import Neuron

# By their id. They are kept, as are the graphs that call them.
_neurons: dict[int, Neuron] = {}


def run(
    neuron: Neuron, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    """As `automatic.run`, while Dynamo traces."""
    z = inputs[0]
    # A channel that is fixed: where no parameter goes by it, compiled code takes any number.
    sized = any(p.ndim for p in (*neuron.parameters(), *neuron.buffers()))
    channels = operator.index(z.shape[2]) if sized and z.ndim > 2 else 1
    number, reason = neuron._registered(z.ndim, channels, z.device, z.dtype)
    if reason:
        check_not_forced(type(neuron).__name__, reason)
        inputs = tuple(map(whole, inputs))
        return scan(neuron.step, inputs, state, time_steps, neuron.checkpoint_steps)
    neuron.step(whole(z[0, :1]), tuple(s[:1] for s in state), *(x[0, :1] for x in inputs[1:]))
    named = dict((*neuron.named_parameters(), *neuron.named_buffers()))
    tensors = (*inputs, *state, *named.values())
    spikes, *last = _run(number, time_steps, len(inputs), len(state), list(named), *tensors)
    return spikes, tuple(last)


def register(
    neuron: Neuron, axes: int, channels: int, device: torch.device, dtype: torch.dtype
) -> tuple[int, str]:
    """The number by which `_run` knows the neuron, and why it cannot be compiled, if so.

    axes, channels, device, dtype: those of z (T, N, channels, ...).
    """
    from .automatic import usable

    shape = (1, 1, channels, *[1] * axes)[:axes]
    with random_state_kept(device), torch.enable_grad():
        z = torch.ones(shape, dtype=dtype, device=device, requires_grad=True)
        extra = neuron.extra(whole(z), 1)
        found = usable(neuron, (z, *extra), neuron.init_state(whole(z[0])))
    _neurons[id(neuron)] = neuron
    torch.compiler.allow_in_graph(_run)  # here, as it loads the compiler, which now is
    return id(neuron), found if isinstance(found, str) else ""


def _run(
    number: int, time_steps: int, inputs: int, states: int, names: list[str], *tensors: Tensor
) -> tuple[Tensor, ...]:
    neuron = _neurons[number]
    zs, state = tensors[:inputs], tensors[inputs : inputs + states]
    values = dict(zip(names, tensors[inputs + states :], strict=True))
    with _reparametrize_module(neuron, values):
        traced = trace(neuron.step, zs[0][0], state, tuple(x[0] for x in zs[1:]))
    spikes, last = backend.kernels_for(zs[0]).run(traced, zs, state, time_steps)
    return spikes, *last
