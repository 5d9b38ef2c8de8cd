"""What has to be known of a foreign neuron, and the list of those that are known."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeGuard

from torch import Tensor, nn

from ..errors import SpikestrapError
from .layout import NEURON_LAYOUTS, STEP


@dataclass(frozen=True)
class Adapter:
    """How a class of neurons is called. All functions take the neuron first.

    layout: where time is in the first argument of a call and in the spikes it returns.
    output: what a call returns, given the rates in place of the spikes and a tensor of the
        same shape in place of each hidden state. A call returns spikes, or a tuple of them
        and anything else.
    states: attributes that hold the state; after a run they are as they were before it.
    reset: sets the state back to where a run starts.
    refuse: the reason why this neuron has no transfer curve, or None.
    steps: where time is folded, how many steps the neuron takes so many rows for, or None if
        any number will do.
    starts: given a call's arguments, whether they lack the state that the model has to pass on.
    """

    layout: Callable[[Any], str]
    output: Callable[[Any, Tensor, Tensor], Any]
    states: Callable[[Any], tuple[str, ...]]
    reset: Callable[[Any], None]
    refuse: Callable[[Any], str | None]
    steps: Callable[[Any, int], int | None] = lambda neuron, rows: None
    starts: Callable[[Any, tuple[Any, ...], dict[str, Any]], bool] = lambda *call: False


@dataclass(frozen=True)
class Library:
    """What an adapter file says of its library.

    root: the package. neurons: class to adapter. stateful: base classes of whatever keeps a
    state over time; what is neither a known neuron nor among `resettable` is refused.
    encoders: classes that draw spikes at random, which are refused.
    resettable: classes that keep a state which commutes with averaging, such as a dropout
    mask, and how it is reset.
    """

    root: str
    neurons: Mapping[type, Adapter]
    stateful: tuple[type, ...]
    encoders: tuple[type, ...] = ()
    resettable: Mapping[type, Callable[[Any], None]] = field(default_factory=dict)


# The adapter files, by the module that is loaded wherever a neuron of theirs exists.
_FILES = {
    "snntorch": "snntorch",
    "spikingjelly.activation_based.neuron": "spikingjelly",
    "norse.torch": "norse",
    "sinabs.layers": "sinabs",
}
_registered: dict[type, Adapter] = {}


def spikes_of(output: Any) -> Tensor:
    """The spikes in what a neuron's call returned: alone, or first in a tuple."""
    spikes: Tensor = output[0] if isinstance(output, tuple) else output
    return spikes


def libraries() -> list[Library]:
    """Those that are loaded. None is imported that is not."""
    return [
        import_module(f".{file}", __package__).LIBRARY
        for module, file in _FILES.items()
        if module in sys.modules
    ]


def register(
    neuron: type[nn.Module],
    *,
    layout: str | Callable[[Any], str] = STEP,
    output: Callable[[Any, Tensor, Tensor], Any] | None = None,
    states: tuple[str, ...] = (),
    reset: Callable[[Any], None] | None = None,
    refuse: Callable[[Any], str | None] | None = None,
) -> None:
    """Makes a class of neurons known to `ss.bootstrap`; registering again replaces.

    neuron: an nn.Module that maps its first argument to spikes, 0 or 1, of the same shape;
        objects of a subclass count too. layout: "step" (N, ...), "time_first" (T, N, ...),
        "batch_first" (N, T, ...) or "folded" (N T, ...), or a function of the neuron.
    output(neuron, rates, hidden): what a call returns; by default the rates alone.
    states: names of the attributes that hold the state.
    reset(neuron): sets the state back to the start; by default by its own `reset()`, where it has
        one, else each of `states` to None.
    refuse(neuron): why it cannot be wrapped, or None.

    Raises SpikestrapError for a layout that does not exist or what is no nn.Module class.

    >>> import torch, spikestrap as ss
    >>> class Accumulator(nn.Module):
    ...     "Fires, and starts again, when its inputs sum up to 1."
    ...     v = None
    ...     def forward(self, x):
    ...         v = x if self.v is None else self.v + x
    ...         spikes = (v > 1).to(x.dtype)
    ...         self.v = v * (1 - spikes)
    ...         return spikes
    >>> ss.wrap.register(Accumulator, states=("v",))
    >>> model = nn.Sequential(nn.Linear(6, 8), Accumulator(), nn.Linear(8, 3))
    >>> net = ss.bootstrap(model, time_steps=4)
    >>> x = 4 * torch.rand(32, 6)
    >>> for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN):
    ...     assert net(x, mode).shape == (32, 3)
    """
    if not (isinstance(neuron, type) and issubclass(neuron, nn.Module)):
        raise SpikestrapError(f"register: expected a class of nn.Module, got {neuron!r}")
    if not callable(layout) and layout not in NEURON_LAYOUTS:
        raise SpikestrapError(
            f"register: layout must be one of {', '.join(NEURON_LAYOUTS)}, or a function; "
            f"got {layout!r}"
        )

    def clear(module: Any) -> None:
        if _needs_nothing(own := getattr(module, "reset", None)):
            own()
            return
        for name in states:
            setattr(module, name, None)

    _registered[neuron] = Adapter(
        layout=layout if callable(layout) else lambda _: layout,
        output=output or (lambda _, rates, hidden: rates),
        states=lambda _: states,
        reset=reset or clear,
        refuse=refuse or (lambda _: None),
    )


def _needs_nothing(method: Any) -> TypeGuard[Callable[[], Any]]:
    """Whether it can be called, without arguments."""
    try:
        inspect.signature(method).bind()
    except TypeError:
        return False
    return True


def adapter_of(module: nn.Module, known: list[Library]) -> Adapter | None:
    """The adapter of a module; None for one that is no neuron, or none that is known.

    A class that a library itself derives from one of its neurons is another neuron; one
    that a user derives is taken for the same.
    """
    for kind in type(module).__mro__:
        if kind in _registered:
            return _registered[kind]
    for library in known:
        own = type(module).__module__.partition(".")[0] == library.root
        for kind in type(module).__mro__[: 1 if own else None]:
            if kind in library.neurons:
                return library.neurons[kind]
    return None
