"""Finds the neurons of a model, and what keeps an ANN on rates from standing in for it."""

from __future__ import annotations

from collections.abc import Container
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..errors import SpikestrapError
from .adapter import Adapter, Library, adapter_of, libraries

# State over time, in torch itself.
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class Found(NamedTuple):
    """A neuron, where it is in the model, and how it is called."""

    name: str
    neuron: nn.Module
    adapter: Adapter


def find_neurons(model: nn.Module) -> list[Found]:
    """The neurons of a model in order of definition; SpikestrapError where there is none.

    Also for a neuron that has no transfer curve, for any other module that keeps a state over
    time, for encoders, and for batch norms without running statistics.
    """
    known = libraries()
    found = []
    for name, module in model.named_modules():
        adapter = adapter_of(module, known)
        reason = adapter.refuse(module) if adapter else _reason(module, known)
        if reason is not None:
            raise SpikestrapError(f"bootstrap: {name!r} ({_kind(module)}): {reason}")
        if adapter is not None:
            found.append(Found(name, module, adapter))
    if not found:
        kinds = [_kind_name(kind) for library in known for kind in library.neurons]
        raise SpikestrapError(
            f"bootstrap: found no neuron in {type(model).__name__}; known are "
            f"{', '.join(kinds) or 'none, as no library of neurons is loaded'}; spikes must come "
            "from modules, not from functions; ss.wrap.register makes others known"
        )
    return found


def parameters(found: Found) -> list[Tensor]:
    """The tensors that a neuron holds, also in tuples, but for its state."""
    _, neuron, adapter = found
    attributes = {**vars(neuron), **neuron._parameters, **neuron._buffers}
    for state in adapter.states(neuron):
        attributes.pop(state, None)
    values = [v if isinstance(v, tuple) else (v,) for v in attributes.values()]
    return [tensor for tensor in chain(*values) if isinstance(tensor, Tensor)]


def feature_maps(model: nn.Module, names: Container[str]) -> dict[str, int | None]:
    """How many feature maps each neuron gets, if what is defined before it is a convolution."""
    maps: dict[str, int | None] = {}
    last = None
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd | nn.Linear):
            last = module.out_channels if isinstance(module, _ConvNd) else None
        if name in names:
            maps[name] = last
    return maps


def resettables(model: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Modules that keep a state besides the neurons, such as a dropout mask, and its reset."""
    known = {kind: reset for lib in libraries() for kind, reset in lib.resettable.items()}
    return [(m, known[type(m)]) for m in model.modules() if type(m) in known]


def _reason(module: nn.Module, known: list[Library]) -> str | None:
    if isinstance(module, _RECURRENT):
        return "keeps a state over time, so averaging over time does not commute with it"
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return (
            "needs running statistics (track_running_stats=True): a batch's own differ between "
            "spikes and rates"
        )
    for library in known:
        if isinstance(module, library.encoders):
            return (
                "encodes its input as spikes, which has no place among rates; encode before the "
                "model and pass (T, N, ...), with time_steps=None"
            )
        if isinstance(module, library.stateful) and type(module) not in library.resettable:
            return (
                "keeps a state over time, but is no neuron that can be wrapped; if its spikes are "
                "0 or 1 and it is not recurrent, ss.wrap.register makes it known"
            )
    return None


def _kind(module: nn.Module) -> str:
    return _kind_name(type(module))


def _kind_name(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
