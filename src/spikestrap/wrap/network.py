"""`ss.bootstrap`: another library's model, with the modes of a `Network`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ann_sampler import AnnSampler
from ..errors import SpikestrapError
from ..evaluating import evaluating
from ..network import Modes
from ..routine import LayerMode, Mode
from ..timeaxis import hold, refuse_lengths, time_mean
from .adapter import Adapter, adapter_of, libraries
from .commute import Commutes
from .drive import check_logits, explained, laid_out, run, step_name, steps_set, takes_state
from .find import Found, find_neurons
from .layout import LAYOUTS, OWN, STEP
from .replaced import Call, replaced, time_means
from .unit import Trace, WrappedUnit, even, on_rates, silent, watching


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
        if time_steps is not None and (not isinstance(time_steps, int) or time_steps < 1):
            raise SpikestrapError(
                f"bootstrap: time_steps must be None or a whole number >= 1, got {time_steps!r}"
            )
        if layout is not None and layout not in LAYOUTS:
            raise SpikestrapError(
                f"bootstrap: layout must be None or one of {', '.join(LAYOUTS)}; got {layout!r}"
            )
        found = find_neurons(model)
        self.time_steps = time_steps
        self.layout = layout or _common_layout(found)
        self.model = model
        self.units = nn.ModuleList(
            WrappedUnit(f.name, AnnSampler(**(sampler or {}))) for f in found
        )
        # What the first passes have to find out yet: how the forward takes time, whether one
        # step on rates gives what more of them do, and whether spiking passes (True) and those
        # on rates (False) commute with averaging.
        self._guessed = layout is None
        self._probed = False
        self._one_step_does: bool | None = None
        self._unchecked = {True, False} if check else set()

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
        return known and self._probed and spiking not in self._unchecked

    @torch.compiler.disable
    def _first_pass(self, sequence: Tensor, modes: list[Mode]) -> Tensor:
        """One that finds something out; compiled code could not look."""
        if not self._probed:
            self._probe(sequence)
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
                unit.sampler.fit()
        given = self._rates_below(sequence, below) if below else {}
        return self._rate_pass(time_mean(sequence), given)

    # The three kinds of pass. A sequence is (T, N, features...); a static input is held.

    def _spiking_pass(self, sequence: Tensor, modes: list[Mode]) -> Tensor:
        traces = {
            unit.name: Trace(keep=m is Mode.SAMPLE)
            for unit, m in zip(self._units, modes, strict=True)
        }
        steps, units = sequence.shape[0], self._by_name()
        calls = {
            name: watching(units[name], neuron, adapter, traces[name], steps)
            for name, neuron, adapter in self._found()
        }
        with self._checked(True, calls) as commutes, self._norms(sequence):
            if commutes and self.time_steps is None:
                sequence = commutes.over_time(sequence)
            logits = self._logits(sequence, calls)
            if commutes:
                commutes.check_output(logits)
        _expect(traces, steps)
        for unit, unit_mode in zip(self._units, modes, strict=True):
            if unit_mode is Mode.SAMPLE:
                traces[unit.name].sample_into(unit)
        return logits

    def _rates_below(self, sequence: Tensor, below: int) -> dict[str, Tensor]:
        """Rates (N, ...), with their gradient, of the first `below` units, run as an SNN."""
        steps = sequence.shape[0]
        traces = {unit.name: Trace(add=i < below) for i, unit in enumerate(self._units)}
        lower = {unit.name: traces[unit.name] for unit in self._units[:below]}
        # What comes after them is not needed, unless the model must finish its step.
        stops = self.layout != OWN and not takes_state(self.model)
        calls, units = {}, self._by_name()
        for name, neuron, adapter in self._found():
            if name in lower:
                calls[name] = watching(units[name], neuron, adapter, traces[name], steps)
            else:
                calls[name] = silent(name, neuron, adapter, lower, steps, stops)
        with self._norms(sequence, moving=False):
            self._run(sequence, calls)
        _expect(lower, steps)
        return {name: trace.rate for name, trace in lower.items()}

    def _rate_pass(self, mean: Tensor, given: dict[str, Tensor]) -> Tensor:
        if self._one_step_does is None:
            self._one_step_does = self._try_one_step(mean)
        steps = 1 if self._one_step_does else (self.time_steps or 1)
        return self._on_rates(mean, given, steps)

    def _on_rates(self, mean: Tensor, given: dict[str, Tensor], steps: int) -> Tensor:
        """The model once, on time means (N, ...), as if held for so many steps."""
        traces = self._new_traces()
        units = self._by_name()
        calls = {
            name: on_rates(units[name], neuron, adapter, traces[name], steps, given.get(name))
            for name, neuron, adapter in self._found()
        }
        name = self._step_name() if self.layout == OWN else None
        with self._checked(False, calls), steps_set(self.model, name, steps):
            logits = self._logits(hold(mean, steps), calls)
        _expect(traces, steps)
        return logits

    # What the first passes find out.

    @torch.no_grad()
    def _probe(self, sequence: Tensor) -> None:
        """Runs the model without spikes, to see that its forward takes time as guessed."""
        steps = sequence.shape[0]
        sequence = _other_batch(sequence)
        if self._guessed and self.layout == STEP:
            called, name = self._most_called(sequence[:1])
            if called > 1:
                if called != self.time_steps:
                    raise SpikestrapError(
                        f"bootstrap: one call of the model calls {name!r} {called} times, but "
                        f"time_steps={self.time_steps}: does it run over time by itself? Then give "
                        'that number as time_steps, or layout="own" with time_steps=None if it '
                        "runs over an input (T, N, ...)"
                    )
                self.layout = OWN
        if self.layout != STEP:
            traces = self._new_traces()
            with evaluating(self.model), self._explained(sequence):
                self._logits(sequence, self._silent(traces, steps))
        self._probed = True

    def _most_called(self, sequence: Tensor) -> tuple[int, str]:
        """How often one call of the model calls a neuron, at most, and which."""
        traces = self._new_traces()
        with evaluating(self.model), self._explained(sequence):
            self._run(sequence, self._silent(traces, 1))
        return max((trace.calls, name) for name, trace in traces.items())

    def _silent(self, traces: Mapping[str, Trace], steps: int) -> dict[str, Call]:
        return {
            name: silent(name, neuron, adapter, traces, steps, stops=False)
            for name, neuron, adapter in self._found()
        }

    def _new_traces(self, **keep: bool) -> dict[str, Trace]:
        return {unit.name: Trace(**keep) for unit in self._units}

    @torch.no_grad()
    def _try_one_step(self, mean: Tensor) -> bool | None:
        """Whether the model may run on rates for a single step; None if that cannot be seen yet.

        A model that takes time whole may return each step's output, or reduce them itself: to
        a mean, which one step gives as well, or to a sum, which grows with the steps. To tell, it
        runs on rates that are the same everywhere: on those of the curves it might be silent.
        """
        one, seen, _ = self._on_even_rates(mean, 1)
        if False in self._unchecked:
            _, again, _ = self._on_even_rates(mean, 1)
            for name, z in seen.items():
                if not torch.equal(z, again[name]):
                    raise SpikestrapError(
                        f"bootstrap: the input of {name!r} is another each time that the model "
                        "runs, in eval mode too: what is drawn at random is not its mean. Encode "
                        "inputs at random before the model and pass (T, N, ...), or check=False"
                    )
        if self.layout == STEP:
            return True
        static_own = self.layout == OWN and self.time_steps is not None
        if static_own and not self._step_name():
            return self.time_steps == 1
        two, _, ran = self._on_even_rates(mean, 2)
        # A sum makes it twice as much; rounding, a little more or less.
        same = ran == 2 and bool((two - one).norm() <= 0.01 * one.norm())
        if not same and not static_own:
            raise SpikestrapError(
                "bootstrap: on rates, the model's output for two time steps is not that for one; "
                "return the output of each step, or their mean, but not their sum, and encode "
                "inputs at random before the model, not in it"
            )
        return same if one.any() or not same else None

    def _on_even_rates(self, mean: Tensor, steps: int) -> tuple[Tensor, dict[str, Tensor], int]:
        """The model on rates of 1/2: logits, what came to each neuron, and for how many steps."""
        traces = self._new_traces(keep=True)
        calls = {
            name: even(name, neuron, adapter, traces, steps)
            for name, neuron, adapter in self._found()
        }
        name = self._step_name() if self.layout == OWN else None
        with (
            evaluating(self.model),
            self._explained(mean.unsqueeze(0)),
            steps_set(self.model, name, steps),
        ):
            logits = self._logits(hold(mean, steps), calls)
        seen = {name: torch.cat(trace.inputs) for name, trace in traces.items() if trace.calls}
        return logits, seen, max(trace.steps for trace in traces.values())

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

    # What is in force while the model runs.

    @property
    def _units(self) -> list[WrappedUnit]:
        return [cast(WrappedUnit, unit) for unit in self.units]

    def _by_name(self) -> dict[str, WrappedUnit]:
        return {unit.name: unit for unit in self._units}

    def _run(self, sequence: Tensor, calls: Mapping[str, Call]) -> Any:
        """The model's output, averaged over time, with these calls for its neurons'."""
        with replaced(self.model, self._found(), calls):
            return run(self.model, sequence, self.layout, self.time_steps is not None)

    def _logits(self, sequence: Tensor, calls: Mapping[str, Call]) -> Tensor:
        return check_logits(self._run(sequence, calls), sequence.shape[1], self.layout)

    def _norms(self, sequence: Tensor, moving: bool = True) -> AbstractContextManager[None]:
        steps, batch = sequence.shape[:2]
        return time_means(self.model, steps, batch, self._folded(), moving)

    def _folded(self) -> str:
        """The layout in which time is folded into the batch, where the model does that."""
        if self.layout != OWN:
            return self.layout
        layouts = {adapter.layout(neuron) for _, neuron, adapter in self._found()}
        return layouts.pop() if len(layouts) == 1 else OWN

    def _explained(self, sequence: Tensor) -> AbstractContextManager[None]:
        shape = laid_out(sequence, self.layout, self.time_steps is not None).shape
        return explained(tuple(shape), self.layout)

    def _step_name(self) -> str | None:
        """Where a model that loops over a static input has its number of steps."""
        return step_name(self.model, self.time_steps) if self.time_steps is not None else None

    def _found(self) -> list[Found]:
        """The units' neurons; looked up in the model, which a copy has copied too."""
        known = libraries()
        found = []
        for unit in self._units:
            neuron = self.model.get_submodule(unit.name)
            adapter = adapter_of(neuron, known)
            if adapter is None:
                raise SpikestrapError(f"bootstrap: {unit.name!r} is no neuron any more")
            found.append(Found(unit.name, neuron, adapter))
        return found

    @contextmanager
    def _checked(self, spiking: bool, calls: dict[str, Call]) -> Iterator[Commutes | None]:
        """Looks for what does not commute, in the first pass of a kind."""
        if spiking not in self._unchecked:
            yield None
            return
        commutes = Commutes(self.model)
        for name, neuron, adapter in self._found():
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
    sampler: settings of every unit's `AnnSampler`.
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


def _other_batch(sequence: Tensor) -> Tensor:
    """A sequence (T, N, ...) with N other than 1 and T, so that a loop over either shows."""
    steps, batch = sequence.shape[:2]
    if batch not in (1, steps):
        return sequence
    if batch - 1 > 1:
        return sequence[:, 1:]
    batch = 2 if steps != 2 else 3
    return sequence[:, :1].expand(-1, batch, *sequence.shape[2:])


def _states(neuron: nn.Module, adapter: Adapter) -> Any:
    return lambda: [getattr(neuron, state, None) for state in adapter.states(neuron)]


def _expect(traces: Mapping[str, Trace], steps: int) -> None:
    """Refuses a neuron that did not run, or not once a time step."""
    for name, trace in traces.items():
        if not trace.calls:
            raise SpikestrapError(
                f"bootstrap: {name!r} was not called by the model's forward: is it unused, or "
                "called as a function? Its call must be seen, as in spikes = neuron(x)"
            )
        if trace.steps != steps:
            raise SpikestrapError(
                f"bootstrap: {name!r} ran for {trace.steps} steps, expected {steps}: it must be "
                "called in one place of the model only, once a step, and with no other number of "
                "steps of its own"
            )
