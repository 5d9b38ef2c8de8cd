"""Keeps the trace of a neuron's step for as long as nothing that it rests on has changed.

A step may read anything: a global variable, a closure. So this is for the package's own neurons
alone, whose steps are known to read parameters, buffers and plain attributes. These are compared
by value at each call, which takes far less time than a trace. Where a parameter is trained, the
trace is part of the gradient's graph and is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .reference import State
from .trace import Trace, trace

if TYPE_CHECKING:
    from ..neuron import Neuron

_OWN = "spikestrap.neuron"
_PLAIN = (bool, int, float, str, type(None))
_kept: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], Trace]] = WeakKeyDictionary()


def trace_of(neuron: Neuron, z: Tensor, state: State, extra: tuple[Tensor, ...]) -> Trace:
    """`trace` of the neuron's step, or the same from before. Raises Untraceable.

    >>> import spikestrap as ss
    >>> lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.5)
    >>> z = torch.zeros(1, 1)
    >>> first = trace_of(lif, z, (z,), ())
    >>> trace_of(lif, z, (z,), ()) is first
    True
    >>> _ = lif.voltage_decay.fill_(0.25)
    >>> trace_of(lif, z, (z,), ()) is first
    False
    """
    key = _key(neuron, z, state, extra)
    if key is None:
        return trace(neuron.step, z, state, extra)
    kept = _kept.get(neuron)
    if kept is not None and kept[0] == key:
        return kept[1]
    with unhooked():
        made = trace(neuron.step, z, state, extra)
    _kept[neuron] = key, made
    return made


def unhooked() -> AbstractContextManager[None]:
    """What is done once, and not at each call, hides from hooks what it saves for a gradient.

    A checkpoint of the user's counts what is saved, and finds less when it runs the layer again.
    """
    return torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _key(
    neuron: Neuron, z: Tensor, state: State, extra: tuple[Tensor, ...]
) -> tuple[Any, ...] | None:
    """All that the trace depends on, to be compared; None where that is not known."""
    known = type(neuron).__module__.startswith(_OWN) and not neuron._modules
    if not known or z.device.type != "cpu":  # from a GPU, values to compare would have to come
        return None
    grad, shape = torch.is_grad_enabled(), z.shape
    if any(part.shape != shape or part.dtype is not torch.float32 for part in (*state, *extra)):
        return None
    key: list[Any] = [grad, torch.is_inference_mode_enabled(), len(state), len(extra)]
    key += [z.ndim, shape[1] if z.ndim > 1 else None]
    for named in (neuron._parameters, neuron._buffers):
        for name, tensor in named.items():
            if tensor is None or type(tensor) not in (Tensor, nn.Parameter):
                return None
            if tensor.device.type != "cpu" or (tensor.requires_grad and grad):
                return None
            key += [name, tensor.dtype, tensor.tolist()]
    for name, value in vars(neuron).items():
        if name.startswith("_"):
            continue
        if isinstance(value, Mapping):
            value = dict(value)
        elif not isinstance(value, _PLAIN) and not type(value).__module__.startswith(_OWN):
            return None
        key += [name, value]
    return tuple(key)
