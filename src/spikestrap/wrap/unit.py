"""The bootstrap unit of a foreign neuron: its transfer curve, and what stands in for its call.

The neuron stays where it is in the user's model. While a pass runs, its `forward` is
replaced: by one that watches in a spiking pass, by the curve in a pass on rates.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..ann_sampler.sampler import sampler_of
from ..ann_sampler.scope import scope
from ..compiling import disable
from ..errors import SpikestrapError, at
from ..timeaxis import hold, time_mean
from ..unit import Curved
from .adapter import Adapter, spikes_of
from .find import Found, parameters
from .layout import FOLDED, from_time_first, to_time_first
from .samples import Samples

Call = Callable[..., Any]


class WrappedUnit(Curved):
    """The curve of the neuron at `name` in the model; the neuron's spikes go through it.

    Whether it is one a channel is told by `settings`, by the neuron's parameters, by a
    convolution that is defined before it, of so many `maps`, and last by the first samples.
    """

    def __init__(self, found: Found, maps: int | None, settings: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.name, self.maps = found.name, maps
        curves = scope(parameters(found))
        told = isinstance(settings, Mapping) and not {"per", "channels"}.isdisjoint(settings)
        # Whether the first samples may say otherwise.
        self.open = curves["per"] == "layer" and not told
        if self.open:
            curves = scope((), maps, maps=True)
        self.sampler = sampler_of(settings, "bootstrap", **curves)
        self.sampler.name = found.name

    @disable
    @torch.no_grad()
    def append(self, samples: Samples, steps: int) -> None:
        """Records the samples of a run over so many steps."""
        with at(f"bootstrap: {self.name!r}"):
            rate, mean = samples.means(steps)
        if self.open and self.sampler.time_steps == 0:
            maps = rate.ndim > 3 or rate.shape[1:2] == (self.maps,)
            self._have(**scope((), rate.shape[1] if maps else None, maps))
        self.sampler.append_means(rate, mean, steps)

    def _have(self, per: str, channels: int | None) -> None:
        """So many curves, whatever it had before."""
        if (per, channels or 1) != (self.sampler.per, self.sampler.channels):
            self.sampler.begin(per, channels)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        curves = state_dict.get(prefix + "sampler.values")
        if self.open and curves is not None:
            self._have(**scope((), len(curves), maps=True))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, z: Tensor, spikes: Tensor | None = None) -> Tensor:
        """Mean inputs z (N, ...) to rates, by the curve; or the neuron's spikes (t, N, ...) at
        z (t, N, ...), as they are.
        """
        if spikes is not None:
            return spikes
        rates: Tensor = self.sampler(z)
        return rates

    def extra_repr(self) -> str:
        return self.name


class Stop(Exception):
    """The rest of a call of the model is not needed."""


class Trace:
    """What a pass has seen of one unit.

    keep: also the inputs of each call. add: also the sum of the spikes. sample: also what the
    unit's curve is sampled from.
    """

    def __init__(self, *, keep: bool = False, add: bool = False, sample: bool = False) -> None:
        self.keep, self.add = keep, add
        self.calls = self.steps = 0
        self.inputs: list[Tensor] = []
        self.total: Tensor | None = None
        self.samples = Samples() if sample else None

    def count(self, steps: int) -> None:
        """One call over so many steps."""
        self.calls += 1
        self.steps += steps

    def see(self, z: Tensor, spikes: Tensor) -> None:
        """One call: z and spikes (t, N, ...)."""
        self.count(spikes.shape[0])
        if self.keep:
            # A copy: the model may go on to change it in place.
            self.inputs.append(z.detach().clone())
        if self.add:
            total = spikes.sum(0)
            self.total = total if self.total is None else self.total + total
        if self.samples is not None:
            self.samples.add(z, spikes)

    @property
    def rate(self) -> Tensor:
        """Mean of the spikes over time, (N, ...), with its gradient."""
        assert self.total is not None
        return self.total / self.steps


def expect(traces: Mapping[str, Trace], steps: int) -> None:
    """Refuses a neuron that did not run, or not once a time step."""
    for name, trace in traces.items():
        if not trace.calls:
            raise SpikestrapError(
                f"bootstrap: {name!r} was not called by the model's forward: is it unused, or "
                "called as a function? Its call must be seen, as in spikes = neuron(x)"
            )
        if trace.calls == steps == 1 < trace.steps:
            raise SpikestrapError(
                f"bootstrap: {name!r} got {trace.steps} steps in a call, expected 1: something "
                "before it makes more of one (a weight for each time step?), or it has a number "
                "of steps of its own (where time is folded, batch_size or num_timesteps)"
            )
        if trace.steps != steps:
            raise SpikestrapError(
                f"bootstrap: {name!r} ran for {trace.steps} steps, expected {steps}: it must be "
                "called in one place of the model only, once a step, and with no other number of "
                "steps of its own (where time is folded, batch_size or num_timesteps; a step mode)"
            )


def watching(
    unit: WrappedUnit, neuron: nn.Module, adapter: Adapter, trace: Trace, steps: int
) -> Call:
    """The neuron's own forward, watched; `steps` of a call where time is folded."""
    original, layout = neuron.forward, adapter.layout(neuron)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if trace.calls and adapter.starts(neuron, args, kwargs):
            raise SpikestrapError(
                f"bootstrap: {unit.name!r} starts from its initial state at every step: its state "
                "is not passed on. Take it as `state` in the model's forward, and return "
                "(output, state)"
            )
        x = _input(original, args, kwargs)
        rows = x.shape[0]
        own = adapter.steps(neuron, rows) or steps
        if layout == FOLDED and rows % own:
            raise SpikestrapError(
                f"bootstrap: {unit.name!r} takes {own} steps in a call, and got {rows} rows (N T, "
                f"...), no multiple of it; expected T = {steps}: give it num_timesteps={steps}, "
                "and no batch_size"
            )
        output = original(*args, **kwargs)
        spikes = spikes_of(output)
        z = to_time_first(x, layout, own)
        trace.see(z, unit(z, to_time_first(spikes, layout, own)))
        return output

    return forward


def on_rates(
    unit: WrappedUnit,
    neuron: nn.Module,
    adapter: Adapter,
    trace: Trace,
    steps: int,
    given: Tensor | None,
) -> Call:
    """Rates in place of spikes: by the curve, or `given` (N, ...)."""

    def fire(z: Tensor) -> Tensor:
        trace.count(z.shape[0])
        return hold(unit(time_mean(z)) if given is None else given, z.shape[0])

    return firing(neuron, adapter, steps, fire)


def silent(
    name: str,
    neuron: nn.Module,
    adapter: Adapter,
    traces: Mapping[str, Trace],
    steps: int,
    enough: float,
) -> Call:
    """No spikes in place of the neuron's; `traces` are those of units that must come first.

    steps: of a call where time is folded. enough: leave the model's forward here once those
    units have run for so many steps; a model may loop over them by itself.
    """
    own = Trace()

    def fire(z: Tensor) -> Tensor:
        own.count(z.shape[0])
        before = min(trace.steps for trace in traces.values())
        if before < own.steps:
            raise SpikestrapError(
                f"bootstrap: {name!r} in ANN mode runs before a unit in SNN mode; a crossover "
                "goes from the input on"
            )
        if before >= enough:
            raise Stop
        return torch.zeros_like(z)

    return firing(neuron, adapter, steps, fire)


def even(neuron: nn.Module, adapter: Adapter, trace: Trace, steps: int, rate: float) -> Call:
    """The same rate whatever comes; the trace counts the calls and may keep what came."""

    def fire(z: Tensor) -> Tensor:
        rates = torch.full_like(z, rate)
        trace.see(z, rates)
        return rates

    return firing(neuron, adapter, steps, fire)


def firing(
    neuron: nn.Module, adapter: Adapter, steps: int, fire: Callable[[Tensor], Tensor]
) -> Call:
    """A call that fires what `fire` makes of its inputs, both (t, N, ...).

    steps: of a call where time is folded.
    """
    original, layout = neuron.forward, adapter.layout(neuron)

    def forward(*args: Any, **kwargs: Any) -> Any:
        z = to_time_first(_input(original, args, kwargs), layout, steps)
        return _instead(neuron, adapter, from_time_first(fire(z), layout))

    return forward


def _instead(neuron: nn.Module, adapter: Adapter, spikes: Tensor) -> Any:
    """What the neuron's call returns, with these in place of its spikes."""
    return adapter.output(neuron, spikes, spikes.detach().new_zeros(()).expand_as(spikes))


def _input(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first argument; of keywords, which come in any order, the first parameter's."""
    if args:
        z: Tensor = args[0]
        return z
    name = next(iter(inspect.signature(call).parameters))
    z = kwargs.get(name, next(iter(kwargs.values())))
    return z
