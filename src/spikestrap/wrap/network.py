"""`ss.bootstrap`: another library's model, with the modes of a `Network`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, cast

from torch import Tensor, nn

from ..compiling import disable
from ..counts import whole_or_none
from ..errors import SpikestrapError
from ..network import Modes
from ..routine import LayerMode, Mode
from ..timeaxis import hold, refuse_lengths, time_mean
from .adapter import Adapter
from .averaging import check_averages
from .batchnorm import has_norms
from .commute import Commutes
from .drive import takes_state
from .find import Found, feature_maps, find_neurons
from .layout import LAYOUTS, OWN, STEP
from .probe import find_layout, heeds, one_step_does, set_norms
from .replaced import Call
from .response import response
from .running import Runner
from .uncompiled import uncompiled
from .unit import Trace, WrappedUnit, expect, on_rates, silent, watching


class Wrapped(nn.Module):
    """A model of another library in SAMPLE, FIT, ANN and SNN mode; made by `ss.bootstrap`.

    Called as ``net(x, mode)``, with one mode for all units, one a unit in their order of
    definition, or what the scheduler gave. Returns logits (N, classes) in every mode: the
    model's output, averaged over time; of a tuple, its first entry.

    In SNN and SAMPLE mode the model runs by its own code, from the neurons' initial state.
    In ANN and FIT mode it runs once, on rates: each neuron's call returns those of its curve
    in place of spikes. With a crossover, the units below it run as an SNN first, and their
    mean rates go into that one run. The neurons' states are afterwards as they were before.

    `model` is the user's, with its own `state_dict` keys; `units` hold the curves.
    """

    def __init__(
        self,
        model: nn.Module,
        time_steps: int | None = None,
        *,
        layout: str | None = None,
        sampler: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise SpikestrapError(f"bootstrap: expected an nn.Module, got {model!r}")
        time_steps = whole_or_none("bootstrap: time_steps", time_steps, 1)
        if layout is not None and layout not in LAYOUTS:
            raise SpikestrapError(
                f"bootstrap: layout must be None or one of {', '.join(LAYOUTS)}; got {layout!r}"
            )
        found = find_neurons(model)
        self.time_steps = time_steps
        self.layout = layout or _common_layout(found)
        self.model = model
        maps = feature_maps(model, [f.name for f in found])
        self.units = nn.ModuleList(WrappedUnit(f, maps[f.name], sampler) for f in found)
        # What the first passes have to find out yet: how the forward takes time, whether it heeds
        # its attribute of a number of steps, if there is one, whether one step on rates gives what
        # more of them do, and whether spiking passes (True) and those on rates (False) commute
        # with averaging.
        self._guessed = layout is None
        self._probed = False
        self._told = True
        self._one_step_does: bool | None = None
        self._check = check
        self._unchecked = {True, False} if check else set()
        # Batch norms may have no statistics yet to go by.
        self._norms_set = not has_norms(model)

    def __deepcopy__(self, memo: dict[int, Any]) -> Wrapped:
        # Neurons that were trained by their own library's code still hold that pass's graph, and
        # torch copies no tensor that has one: the copy's states are without it.
        states = [
            getattr(neuron, name, None)
            for _, neuron, adapter in self._runner.neurons()
            for name in adapter.states(neuron)
        ]
        for state in states:
            if isinstance(state, Tensor) and not state.is_leaf:
                memo[id(state)] = state.detach().clone()
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def unwrap(self) -> nn.Module:
        """The user's model, with the weights as trained; runs by its own code alone."""
        return self.model

    def forward(self, x: Tensor, mode: Modes = Mode.SNN) -> Tensor:
        """Logits (N, classes); x (N, features...) with time_steps=T, else (T, N, features...)."""
        refuse_lengths("bootstrap: a model of another library")
        modes = self._modes(mode)
        sequence = self._enter(x)
        run = self._pass if self._knows_enough(modes) else self._first_pass
        return run(sequence, modes)

    def _knows_enough(self, modes: list[Mode]) -> bool:
        spiking = all(m.spiking for m in modes)
        known = spiking or self._one_step_does is not None
        known = known and self._probed and not self._must_set_norms(modes)
        return known and spiking not in self._unchecked

    def _must_set_norms(self, modes: list[Mode]) -> bool:
        return not self._norms_set and self.training and modes[0].spiking

    @disable
    def _first_pass(self, sequence: Tensor, modes: list[Mode]) -> Tensor:
        """One that finds something out; compiled code could not look."""
        with uncompiled(self.model):
            if not self._probed:
                self.layout = find_layout(self._runner, sequence, self._guessed)
                self._probed = True
            if self._must_set_norms(modes):
                set_norms(self._runner, sequence)
                self._norms_set = True
            return self._pass(sequence, modes)

    def _pass(self, sequence: Tensor, modes: list[Mode]) -> Tensor:
        below = sum(m.spiking for m in modes)
        if below == len(modes):
            return self._spiking_pass(sequence, modes)
        if any(m.spiking for m in modes[below:]):
            raise SpikestrapError(
                "bootstrap: a crossover goes from the input on: expected units in SNN mode before "
                f"those in ANN mode, got {', '.join(m.name for m in modes)}"
            )
        for unit, unit_mode in zip(self._units, modes, strict=True):
            if unit_mode is Mode.FIT or (not unit_mode.spiking and unit.sampler.pending):
                self._fit(unit)
        given = self._rates_below(sequence, below) if below else {}
        return self._rate_pass(sequence, given)

    @disable
    def _fit(self, unit: WrappedUnit) -> None:
        (found,) = (found for found in self._runner.neurons() if found.name == unit.name)
        unit.sampler.fit(partial(response, found))

    # The three kinds of pass. A sequence is (T, N, features...); a static input is held.

    def _spiking_pass(self, sequence: Tensor, modes: list[Mode]) -> Tensor:
        traces = {
            unit.name: Trace(sample=m is Mode.SAMPLE)
            for unit, m in zip(self._units, modes, strict=True)
        }
        steps, units, runner = sequence.shape[0], self._by_name(), self._runner
        calls = {
            name: watching(units[name], neuron, adapter, traces[name], steps)
            for name, neuron, adapter in runner.neurons()
        }
        with self._checked(True, calls) as commutes, runner.norms(sequence) as begin:
            if commutes and self.time_steps is None:
                sequence = commutes.over_time(sequence)
            logits = runner.logits(sequence, calls, begin)
            if commutes:
                commutes.check_output(logits)
        expect(traces, steps)
        for unit in self._units:
            if (samples := traces[unit.name].samples) is not None:
                unit.append(samples, steps)
        return logits

    def _rates_below(self, sequence: Tensor, below: int) -> dict[str, Tensor]:
        """Rates (N, ...), with their gradient, of the first `below` units, run as an SNN."""
        steps = sequence.shape[0]
        traces = {unit.name: Trace(add=i < below) for i, unit in enumerate(self._units)}
        lower = {unit.name: traces[unit.name] for unit in self._units[:below]}
        # What comes after them is not needed, unless the model must finish its step.
        whole = self.layout == OWN or takes_state(self.model)
        enough = math.inf if whole else 1 if self.layout == STEP else steps
        calls, units, runner = {}, self._by_name(), self._runner
        for name, neuron, adapter in runner.neurons():
            if name in lower:
                calls[name] = watching(units[name], neuron, adapter, traces[name], steps)
            else:
                calls[name] = silent(name, neuron, adapter, lower, steps, enough)
        with runner.norms(sequence, moving=False) as begin:
            runner.run(sequence, calls, begin)
        expect(lower, steps)
        return {name: trace.rate for name, trace in lower.items()}

    def _rate_pass(self, sequence: Tensor, given: dict[str, Tensor]) -> Tensor:
        """The model once, on time means, as if held for one step or all."""
        mean, length = time_mean(sequence), sequence.shape[0]
        if self._one_step_does is None:
            self._told = heeds(self._runner, mean, length)
            does = one_step_does(self._runner, mean, length, self._check)
            if self._check and does is not None:
                check_averages(self._runner, sequence, 1 if does else (self.time_steps or 1))
            self._one_step_does = does  # last: what is refused is refused each time
        steps = 1 if self._one_step_does else (self.time_steps or 1)
        traces = {unit.name: Trace() for unit in self._units}
        units, runner = self._by_name(), self._runner
        calls = {
            name: on_rates(units[name], neuron, adapter, traces[name], steps, given.get(name))
            for name, neuron, adapter in runner.neurons()
        }
        with self._checked(False, calls):
            logits = runner.on_rates(mean, calls, steps, length)
        expect(traces, steps)
        return logits

    # What comes in.

    def _enter(self, x: Tensor) -> Tensor:
        """The input as a sequence (T, N, ...)."""
        least = 2 if self.time_steps is not None else 3
        wanted = "(N, features...)" if least == 2 else "(T, N, features...)"
        if not x.is_floating_point() or x.ndim < least or x.numel() == 0:
            raise SpikestrapError(
                f"bootstrap: with time_steps={self.time_steps} expected a floating-point input "
                f"{wanted}, not empty; got {x.dtype}, shape {tuple(x.shape)}"
            )
        return x if self.time_steps is None else hold(x, self.time_steps)

    def _modes(self, mode: Modes) -> list[Mode]:
        """One mode a unit."""
        count = len(self.units)
        if isinstance(mode, LayerMode):
            return list(islice(mode, count))
        if isinstance(mode, list | tuple):
            if len(mode) != count:
                raise SpikestrapError(
                    f"bootstrap: expected {count} modes, one a unit, got {len(mode)}"
                )
            return [Mode.of(m) for m in mode]
        return [Mode.of(mode)] * count

    # What the passes work with.

    @property
    def _units(self) -> list[WrappedUnit]:
        return [cast(WrappedUnit, unit) for unit in self.units]

    def _by_name(self) -> dict[str, WrappedUnit]:
        return {unit.name: unit for unit in self._units}

    @property
    def _runner(self) -> Runner:
        names = [unit.name for unit in self._units]
        return Runner(self.model, names, self.layout, self.time_steps, self._told)

    @contextmanager
    def _checked(self, spiking: bool, calls: dict[str, Call]) -> Iterator[Commutes | None]:
        """Looks for what does not commute, in the first pass of a kind."""
        if spiking not in self._unchecked:
            yield None
            return
        commutes = Commutes(self.model)
        for name, neuron, adapter in self._runner.neurons():
            calls[name] = commutes.around(calls[name], name, _states(neuron, adapter))
        with commutes:
            yield commutes
        self._unchecked = self._unchecked - {spiking}

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, layout={self.layout!r}"


def bootstrap(
    model: nn.Module,
    time_steps: int | None = None,
    *,
    layout: str | None = None,
    sampler: Mapping[str, Any] | None = None,
    check: bool = True,
) -> Wrapped:
    """Wraps a model with neurons of snnTorch, SpikingJelly, Norse, sinabs, or your own.

    model: any nn.Module; it is neither copied nor changed. Its neurons are found; its forward
        may do between them whatever commutes with averaging over time.
    time_steps: T for static inputs (N, features...), held for so long; None for inputs that
        have time, (T, N, features...).
    layout: how the model's forward takes time. "step": one step (N, ...) a call, so it is
        called T times; "time_first": (T, N, ...); "batch_first": (N, T, ...); "folded":
        (N T, ...); "own": it runs over time by itself, given just what `net` is given. None:
        as its neurons do; and where one call calls single-step neurons T times, "own".
    sampler: settings of every unit's `AnnSampler`. Each channel of feature maps has a curve, as
        has each where a neuron's parameters differ between them, unless per="layer".
    check: look, in the first passes, for what does not commute with averaging over time.

    Raises SpikestrapError where there is nothing to wrap, and, now or in a first pass, for
    neurons, layers and operations that have no place among rates: which, where, and why.

    >>> import torch, spikestrap as ss
    >>> from spikingjelly.activation_based import layer, neuron
    >>> model = nn.Sequential(layer.Linear(64, 32), neuron.LIFNode(), layer.Linear(32, 10))
    >>> net = ss.bootstrap(model, time_steps=8)
    >>> x = 4 * torch.rand(16, 64)
    >>> for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN):
    ...     assert net(x, mode).shape == (16, 10)
    >>> net.unwrap() is model
    True
    """
    return Wrapped(model, time_steps, layout=layout, sampler=sampler, check=check)


def _common_layout(found: list[Found]) -> str:
    layouts = {f.adapter.layout(f.neuron): f for f in found}
    if len(layouts) > 1:
        mixed = ", ".join(f"{f.name!r}: {layout!r}" for layout, f in layouts.items())
        raise SpikestrapError(
            f"bootstrap: the neurons take time in different ways ({mixed}); say with layout=... "
            f"how the model's forward does: one of {', '.join(LAYOUTS)}"
        )
    return next(iter(layouts))


def _states(neuron: nn.Module, adapter: Adapter) -> Any:
    return lambda: [getattr(neuron, state, None) for state in adapter.states(neuron)]
