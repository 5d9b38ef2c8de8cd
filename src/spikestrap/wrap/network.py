"""`ss.bootstrap`: another library's model, with the modes of a `Network`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ann_sampler import AnnSampler
from ..errors import SpikestrapError
from ..network import Modes
from ..routine import LayerMode, Mode
from ..timeaxis import has_time, hold, time_mean
from .adapter import Adapter, adapter_of, libraries
from .batchnorm import TimeMeans
from .commute import Commutes
from .find import Found, find_neurons, resettables
from .layout import BATCH_FIRST, FOLDED, LAYOUTS, OWN, STEP, from_time_first
from .unit import Call, Stop, Trace, WrappedUnit, on_rates, silent, watching

# Where a model that runs over time by itself may have its number of steps.
STEP_NAMES = ("num_steps", "time_steps", "T", "n_steps", "timesteps", "num_timesteps")
_MISSING = object()


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
        self._one_step_does: bool | None = None
        self._unchecked = {True, False} if check else set()

    def unwrap(self) -> nn.Module:
        """The user's model, with the weights as trained; runs by its own code alone."""
        return self.model

    def forward(self, x: Tensor, mode: Modes = Mode.SNN) -> Tensor:
        """Logits (N, classes); x (N, features...) with time_steps=T, else (T, N, features...)."""
        modes = self._modes(mode)
        sequence = self._enter(x)
        if self._guessed:
            self._probe(sequence)
        below = sum(m.spiking for m in modes)
        if below == len(modes):
            return self._spiking_pass(sequence, modes)
        if any(m.spiking for m in modes[below:]):
            raise SpikestrapError(
                "bootstrap: a crossover goes from the input on: expected units in SNN mode before "
                f"those in ANN mode, got {', '.join(m.name for m in modes)}"
            )
        for unit, unit_mode in zip(self.units, modes, strict=True):
            if unit_mode is Mode.FIT or (not unit_mode.spiking and unit.sampler.pending):
                unit.sampler.fit()
        given = self._rates_below(sequence, below) if below else {}
        return self._rate_pass(time_mean(sequence), given)

    # The three kinds of pass. A sequence is (T, N, features...); a static input is held.

    def _spiking_pass(self, sequence: Tensor, modes: list[Mode]) -> Tensor:
        traces = {
            unit.name: Trace(keep=m is Mode.SAMPLE)
            for unit, m in zip(self.units, modes, strict=True)
        }
        steps = sequence.shape[0]
        calls = {
            name: watching(neuron, adapter, traces[name], steps)
            for name, neuron, adapter in self._found()
        }
        with self._checked(True, calls) as commutes, self._norms(sequence), self._replaced(calls):
            if commutes and self.time_steps is None:
                sequence = commutes.over_time(sequence)
            logits = self._run(sequence)
            self._check_logits(logits, sequence.shape[1])
            if commutes:
                commutes.check_output(logits)
        _expect(traces, steps)
        for unit, unit_mode in zip(self.units, modes, strict=True):
            if unit_mode is Mode.SAMPLE:
                traces[unit.name].sample_into(unit)
        return logits

    def _rates_below(self, sequence: Tensor, below: int) -> dict[str, Tensor]:
        """Rates (N, ...), with their gradient, of the first `below` units, run as an SNN."""
        steps = sequence.shape[0]
        traces = {unit.name: Trace(add=i < below) for i, unit in enumerate(self.units)}
        lower = {unit.name: traces[unit.name] for unit in self.units[:below]}
        # What comes after them is not needed, unless the model must finish its step.
        stops = self.layout != OWN and not _takes_state(self.model)
        calls = {}
        for name, neuron, adapter in self._found():
            if name in lower:
                calls[name] = watching(neuron, adapter, traces[name], steps)
            else:
                calls[name] = silent(name, neuron, adapter, lower, steps, stops)
        with self._norms(sequence, moving=False), self._replaced(calls):
            self._run(sequence)
        _expect(lower, steps)
        return {name: trace.rate for name, trace in lower.items()}

    def _rate_pass(self, mean: Tensor, given: dict[str, Tensor]) -> Tensor:
        if self._one_step_does is None:
            self._one_step_does = self._try_one_step(mean, given)
        steps = 1 if self._one_step_does else (self.time_steps or 1)
        return self._on_rates(mean, given, steps)

    def _on_rates(self, mean: Tensor, given: dict[str, Tensor], steps: int) -> Tensor:
        """The model once, on time means (N, ...), as if held for so many steps."""
        traces = {unit.name: Trace() for unit in self.units}
        units = {unit.name: unit for unit in self.units}
        calls = {
            name: on_rates(units[name], neuron, adapter, traces[name], steps, given.get(name))
            for name, neuron, adapter in self._found()
        }
        with self._checked(False, calls), self._replaced(calls), self._steps_set(steps):
            logits = self._run(hold(mean, steps))
            self._check_logits(logits, mean.shape[0])
        _expect(traces, steps)
        return logits

    # What the first passes find out.

    @torch.no_grad()
    def _probe(self, sequence: Tensor) -> None:
        """Runs the model without spikes, to see that its forward takes time as guessed."""
        steps, batch = sequence.shape[:2]
        if self.layout == STEP:
            # One step; of another batch than T, so that a loop over either shows.
            sequence = sequence[:1, : batch - 1 if batch == self.time_steps else batch]
        traces = {unit.name: Trace() for unit in self.units}
        calls = {
            name: silent(name, neuron, adapter, traces, steps, stops=False)
            for name, neuron, adapter in self._found()
        }
        with _evaluating(self.model), self._replaced(calls), self._explained(sequence):
            self._run(sequence)
        called = max(trace.calls for trace in traces.values())
        if self.layout == STEP and called > 1:
            if called != self.time_steps:
                name = max(traces, key=lambda n: traces[n].calls)
                raise SpikestrapError(
                    f"bootstrap: one call of the model calls {name!r} {called} times, but "
                    f"time_steps={self.time_steps}: does it run over time by itself? Then give "
                    'that number as time_steps, or layout="own" with time_steps=None if it runs '
                    "over an input (T, N, ...)"
                )
            self.layout = OWN
        self._guessed = False

    @torch.no_grad()
    def _try_one_step(self, mean: Tensor, given: dict[str, Tensor]) -> bool:
        """Whether the model may run on rates for a single step.

        A model that takes time whole may return each step's output, or reduce them itself: to
        a mean, which one step gives as well, or to a sum, which grows with the steps.
        """
        if self.layout == STEP:
            return True
        static_own = self.layout == OWN and self.time_steps is not None
        if static_own and not self._step_name():
            return self.time_steps == 1
        unchecked, self._unchecked = self._unchecked, set()
        try:
            with _evaluating(self.model), self._explained(mean.unsqueeze(0)):
                one, two = (self._on_rates(mean, given, steps) for steps in (1, 2))
        finally:
            self._unchecked = unchecked
        same = torch.allclose(one, two, rtol=1e-3, atol=1e-5)
        if not same and not static_own:
            raise SpikestrapError(
                "bootstrap: on rates, the model's output for two time steps is not that for one; "
                "return the output of each step, or their mean, but not their sum, and encode "
                "inputs at random before the model, not in it"
            )
        return same

    @contextmanager
    def _explained(self, sequence: Tensor) -> Iterator[None]:
        """Whatever fails in the model, it may be that it takes time in another way."""
        try:
            yield
        except SpikestrapError:
            raise
        except Exception as error:
            raise SpikestrapError(
                f"bootstrap: the model's forward failed on an input "
                f"{tuple(self._laid_out(sequence).shape)}, layout {self.layout!r} (layout=... says "
                f"how it takes time): {type(error).__name__}: {error}"
            ) from error

    # How the model is called.

    def _run(self, sequence: Tensor) -> Tensor:
        """Logits (N, ...) of the model for a sequence (t, N, ...)."""
        if self.layout == STEP:
            return self._run_steps(sequence)
        try:
            output = _first(self.model(self._laid_out(sequence)))
        except Stop:
            return sequence
        return self._mean_over_time(output, *sequence.shape[:2])

    def _run_steps(self, sequence: Tensor) -> Tensor:
        """The mean over one call a step; a state that is passed on explicitly is."""
        total: Any = None
        arguments: dict[str, Any] = {}
        takes_state = _takes_state(self.model)
        for x in sequence:
            try:
                output = self.model(x, **arguments)
            except Stop:
                total = x
                continue
            if takes_state:
                output, arguments["state"] = output
            output = _first(output)
            total = output if total is None else total + output
        return total / sequence.shape[0]

    def _laid_out(self, sequence: Tensor) -> Tensor:
        """A sequence (t, N, ...) as the model takes it."""
        if self.layout == STEP or (self.layout == OWN and self.time_steps is not None):
            return sequence[0]
        return from_time_first(sequence, self.layout) if self.layout != OWN else sequence

    def _mean_over_time(self, output: Tensor, steps: int, batch: int) -> Tensor:
        """Logits (N, ...) of an output over time, or one that the model has averaged itself."""
        if self.layout == FOLDED and output.shape[0] == steps * batch:
            output = output.unflatten(0, (batch, steps)).mean(1)
        elif has_time(output):
            output = output.mean(1 if self.layout == BATCH_FIRST else 0)
        return output

    def _check_logits(self, logits: Any, batch: int) -> None:
        if not isinstance(logits, Tensor) or logits.ndim < 2 or logits.shape[0] != batch:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise SpikestrapError(
                f"bootstrap: expected the model to return logits ({batch}, classes), or those of "
                f"each step in layout {self.layout!r}, or a tuple that starts with them; got {got}"
            )

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

    def _found(self) -> list[Found]:
        """The units' neurons; looked up in the model, which a copy has copied too."""
        known = libraries()
        found = []
        for unit in self.units:
            neuron = self.model.get_submodule(unit.name)
            adapter = adapter_of(neuron, known)
            if adapter is None:
                raise SpikestrapError(f"bootstrap: {unit.name!r} is no neuron any more")
            found.append(Found(unit.name, neuron, adapter))
        return found

    @contextmanager
    def _replaced(self, calls: Mapping[str, Call]) -> Iterator[None]:
        """Neurons from their initial state, with other forwards; all as before in the end."""
        found = self._found()
        states = [
            (neuron, state, getattr(neuron, state, _MISSING))
            for _, neuron, adapter in found
            for state in adapter.states(neuron)
        ]
        others = resettables(self.model)
        before = [neuron.__dict__.get("forward", _MISSING) for _, neuron, _ in found]
        try:
            for name, neuron, adapter in found:
                adapter.reset(neuron)
                neuron.__dict__["forward"] = calls[name]
            for module, reset in others:
                reset(module)
            yield
        finally:
            for (_, neuron, adapter), forward in zip(found, before, strict=True):
                adapter.reset(neuron)
                _set_back(neuron, "forward", forward)
            for neuron, state, value in states:
                _set_back(neuron, state, value)
            for module, reset in others:
                reset(module)

    @contextmanager
    def _norms(self, sequence: Tensor, moving: bool = True) -> Iterator[None]:
        """Batch norms in training: by their running statistics, which then move."""
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.training]
        means = [TimeMeans(norm, *sequence.shape[:2], self.layout) for norm in norms]
        before = [norm.__dict__.get("forward", _MISSING) for norm in norms]
        try:
            for norm, mean in zip(norms, means, strict=True):
                norm.__dict__["forward"] = mean
            yield
        finally:
            for norm, forward in zip(norms, before, strict=True):
                _set_back(norm, "forward", forward)
        if moving:
            for mean in means:
                mean.update()

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

    def _step_name(self) -> str | None:
        """The attribute in which the model has its number of time steps, if there is one."""
        own = vars(self.model)
        return next((name for name in STEP_NAMES if own.get(name) == self.time_steps), None)

    @contextmanager
    def _steps_set(self, steps: int) -> Iterator[None]:
        """A model that runs over time by itself, told to run for so many steps."""
        name = self._step_name() if self.layout == OWN and self.time_steps is not None else None
        if name is None:
            yield
            return
        try:
            setattr(self.model, name, steps)
            yield
        finally:
            setattr(self.model, name, self.time_steps)

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


def _takes_state(model: nn.Module) -> bool:
    return "state" in inspect.signature(model.forward).parameters


def _states(neuron: nn.Module, adapter: Adapter) -> Any:
    return lambda: [getattr(neuron, state, None) for state in adapter.states(neuron)]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _set_back(module: nn.Module, name: str, value: Any) -> None:
    if name == "forward":
        module.__dict__.pop(name, None)
        if value is not _MISSING:
            module.__dict__[name] = value
    elif value is not _MISSING:
        setattr(module, name, value)
    elif hasattr(module, name):
        delattr(module, name)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards each module is as it was."""
    trainings = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in trainings.items():
            module.training = training


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
                "called in one place of the model only, once a step"
            )
