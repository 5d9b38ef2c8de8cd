"""What holds while a wrapped model runs: other forwards, fresh states; all as before in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from .again import once, refuse_again
from .batchnorm import TimeMeans, norms_of
from .drive import Begin
from .find import Found, resettables

Call = Callable[..., Any]
_MISSING = object()


@contextmanager
def replaced(model: nn.Module, found: Sequence[Found], calls: Mapping[str, Call]) -> Iterator[None]:
    """The neurons of a model, from their initial state, with the forwards in `calls`."""
    states = [
        (neuron, state, getattr(neuron, state, _MISSING))
        for _, neuron, adapter in found
        for state in adapter.states(neuron)
    ]
    others = resettables(model)
    try:
        for _, neuron, adapter in found:
            adapter.reset(neuron)
        for module, reset in others:
            reset(module)
        with _forwards([(neuron, calls[name]) for name, neuron, _ in found]):
            yield
    finally:
        for _, neuron, adapter in found:
            adapter.reset(neuron)
        for neuron, state, value in states:
            if value is not _MISSING:
                setattr(neuron, state, value)
            elif hasattr(neuron, state):
                delattr(neuron, state)
        for module, reset in others:
            reset(module)


@contextmanager
def time_means(
    model: nn.Module, steps: int, batch: int, layout: str, moving: bool = True
) -> Iterator[Begin]:
    """Batch norms in training, by their running statistics, which then move if `moving`.

    Yields what must be told before each call of the model.
    """
    norms = norms_of(model)
    if norms:
        refuse_again()
    means = [TimeMeans(name, norm, steps, batch, layout) for name, norm in norms.items()]

    def begin() -> None:
        for mean in means:
            mean.begin_call()

    with _forwards(list(zip(norms.values(), means, strict=True))):
        yield begin
    if moving:
        for mean in means:
            mean.check()
        for mean in means:
            mean.update()


@contextmanager
def _forwards(calls: Sequence[tuple[nn.Module, Call]]) -> Iterator[None]:
    """Other forwards, set on the objects; a forward that was set there comes back."""
    before = [module.__dict__.get("forward", _MISSING) for module, _ in calls]
    try:
        for module, call in calls:
            module.__dict__["forward"] = once(module, call)
        yield
    finally:
        for (module, _), forward in zip(calls, before, strict=True):
            if forward is _MISSING:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward
