"""What has to be found out about a model by running it: how it takes time, and how long on rates.

It runs on spikes and rates that are the same everywhere, without a gradient, in eval mode: what
the curves would give is nothing, while a layer is silent. And what has to be set before it is run:
the running statistics of batch norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ..errors import SpikestrapError
from ..evaluating import evaluating
from ..random_state import random_state_kept
from .averaging import off_by
from .batchnorm import norms_of
from .drive import check_logits, steps_set
from .layout import BATCH_FIRST, OWN, STEP, TIME_FIRST
from .replaced import Call
from .running import Runner
from .unit import Trace, even, expect, firing


@torch.no_grad()
def find_layout(runner: Runner, sequence: Tensor, guessed: bool) -> str:
    """The layout of a model, whose guess may have to be mended; sequence (T, N, ...).

    Raises SpikestrapError where the model does not take time as it should.
    """
    if guessed and runner.layout == STEP:
        traces = _one_call(runner, sequence[:1])
        called, name = _most_called(traces)
        if called <= 1:
            return STEP
        if called != runner.time_steps:
            raise SpikestrapError(
                f"bootstrap: one call of the model calls {name!r} {called} times, but "
                f"time_steps={runner.time_steps}: is it used in {called} places? Then give each a "
                "module of its own. Does the model run over time by itself? Then give that number "
                "as time_steps, or, if it runs over an input (T, N, ...), "
                'layout="own" with time_steps=None or layout="time_first" with either'
            )
        if not (_tells_steps(runner, sequence[:1]) or _repeats(traces)):
            raise SpikestrapError(
                f"bootstrap: one call of the model calls {name!r} {called} times, which is "
                f"time_steps={runner.time_steps}, but not with the same input: is it used in "
                f"{called} places? Then give each a module of its own. Does the model run over "
                "time by itself, on another input at each step? Then make that input before it "
                "and pass (T, N, ...), with time_steps=None"
            )
        runner = replace(runner, layout=OWN)
    elif guessed:
        with evaluating(runner.model), runner.explained(sequence):
            runner.run(sequence, _firing(runner, _traces(runner), sequence.shape[0], 0.0))
    if sequence.shape[0] == sequence.shape[1]:
        if runner.layout == OWN:
            _check_axes(runner, _other_batch(sequence, sequence.shape[0]))
        elif runner.layout in (TIME_FIRST, BATCH_FIRST):
            _check_order(runner, sequence)
    return runner.layout


@torch.no_grad()
def heeds(runner: Runner, mean: Tensor, length: int) -> bool:
    """Whether a model is to be told of its number of steps, in the attribute that has `length`.

    Where time is in its input, that may be some other number, a temperature or a size. Then it
    runs untold alone: told, it fails, or the output for one step is not that for two.
    """
    if runner.layout in (STEP, OWN) or runner.step_name(length) is None:
        return True

    def runs(told: bool) -> bool:
        way = replace(runner, told=told)
        try:
            one, _, _ = _on_even_rates(way, mean, 1, length)
            return _two_are_as(one, way, mean, length)
        except SpikestrapError:
            return False

    return runs(told=True) or not runs(told=False)


@torch.no_grad()
def one_step_does(runner: Runner, mean: Tensor, length: int, check: bool) -> bool | None:
    """Whether the model may run on rates for a single step; None if that cannot be seen yet.

    A model that takes time whole may return each step's output, or reduce them itself: to a
    mean, which one step gives as well, or to a sum, which grows with the steps. mean: (N, ...),
    over `length` time steps. check: also refuse one that draws at random what its neurons get.
    """
    static_own = runner.layout == OWN and runner.time_steps is not None
    known = True if runner.layout == STEP else None
    if static_own and not runner.step_name(length):
        known = runner.time_steps == 1  # it loops T times, whatever it is told
    if known is not None and not check:
        return known
    one, seen, _ = _on_even_rates(runner, mean, 1, length)
    if check:
        _, again, _ = _on_even_rates(runner, mean, 1, length)
        _check_the_same(seen, again)
    if known is not None:
        return known
    same = _two_are_as(one, runner, mean, length)
    if not same and not static_own:
        raise SpikestrapError(
            "bootstrap: on rates, the model's output for two time steps is not that for one; "
            "return the output of each step, or their mean, but not their sum, and encode "
            "inputs at random before the model, not in it"
        )
    return same if one.any() or not same else None


@torch.no_grad()
def set_norms(runner: Runner, sequence: Tensor) -> None:
    """Gives batch norms that have seen nothing yet the statistics of a sequence (T, N, ...).

    By those of torch, 0 and 1, what comes before a neuron may be too little for any spike, and the
    next norm would make of that silence the largest of scales. A pass sets right the first norm
    that is not yet; so there are as many passes as norms.
    """
    new = [norm for norm in norms_of(runner.model).values() if norm.num_batches_tracked == 0]
    calls = {name: neuron.forward for name, neuron, _ in runner.neurons()}
    with random_state_kept(sequence.device):
        for _ in new:
            with runner.norms(sequence) as begin:
                runner.run(sequence, calls, begin)
            for norm in new:
                cast(Tensor, norm.num_batches_tracked).zero_()


def _other_batch(sequence: Tensor, time_steps: int | None) -> Tensor:
    """A sequence (T, N, ...) with N other than 1 and T, so that a loop over either shows."""
    batch = sequence.shape[1]
    if batch not in (1, time_steps):
        return sequence
    if batch - 1 > 1:
        return sequence[:, 1:].contiguous()
    batch = 2 if time_steps != 2 else 3
    return sequence[:, :1].expand(-1, batch, *sequence.shape[2:]).contiguous()


def _one_call(runner: Runner, step: Tensor) -> dict[str, Trace]:
    """What a call of the model, on (1, N, ...), calls its neurons with, while they are silent."""
    other = _other_batch(step, runner.time_steps)
    try:
        return _called(runner, other)
    except SpikestrapError:
        if other is step:
            raise
    return _called(runner, step)  # a model that takes batches of this size alone


def _called(runner: Runner, step: Tensor) -> dict[str, Trace]:
    traces = _traces(runner, keep=True)
    with evaluating(runner.model), runner.explained(step):
        runner.run(step, _firing(runner, traces, 1, 0.0))
    return traces


def _most_called(traces: Mapping[str, Trace]) -> tuple[int, str]:
    """How often a neuron was called, at most, and which."""
    return max((trace.calls, name) for name, trace in traces.items())


def _tells_steps(runner: Runner, step: Tensor) -> bool:
    """Whether a model that calls its neurons T times calls them once where told to take one step.

    That is a loop over time; without an attribute that says T it cannot be told.
    """
    assert runner.time_steps is not None
    name = runner.step_name(runner.time_steps)
    with steps_set(runner.model, name, 1):
        return name is not None and _most_called(_one_call(runner, step))[0] == 1


def _repeats(traces: Mapping[str, Trace]) -> bool:
    """Whether all calls of a neuron had the same input.

    So it is in a loop over time, whose input is held: nothing but the neurons' states, which
    these traces are without, tells one step from the next. Two places get two things.
    """
    return all(_close(trace.inputs[0], z) for trace in traces.values() for z in trace.inputs[1:])


def _check_axes(runner: Runner, sequence: Tensor) -> None:
    """Refuses outputs (N, T, ...), which are not to be told from (T, N, ...) while N is T."""
    try:
        with evaluating(runner.model):
            calls = _firing(runner, _traces(runner), sequence.shape[0], 0.0)
            output = runner.run(sequence, calls)
    except Exception:
        return  # a model that takes batches of one size alone
    check_logits(output, sequence.shape[1], runner.layout)


def _check_order(runner: Runner, sequence: Tensor) -> None:
    """Refuses outputs with N and T in another order than the layout's, which N = T hides.

    By images that are all the same, and change over time: so must be their means over time.
    """
    growing = torch.arange(1.0, len(sequence) + 1).view(-1, *[1] * (sequence.ndim - 1))
    alike = (sequence[:, :1] * growing.to(sequence)).expand_as(sequence).contiguous()
    calls = {
        name: firing(neuron, adapter, len(sequence), lambda z: z)
        for name, neuron, adapter in runner.neurons()
    }
    with evaluating(runner.model), runner.explained(sequence):
        output, again = (runner.run(alike, calls) for _ in range(2))
    if not isinstance(output, Tensor) or off_by(output, again):
        return  # what is no output is told elsewhere; what draws at random tells nothing here
    if off_by(output, output[:1].expand_as(output)):
        axes = "(T, N, classes)" if runner.layout == TIME_FIRST else "(N, T, classes)"
        raise SpikestrapError(
            f"bootstrap: in layout {runner.layout!r} expected the model to return the logits of "
            f"each step as {axes}, or their mean; got N and T the other way round"
        )


def _on_even_rates(
    runner: Runner, mean: Tensor, steps: int, length: int
) -> tuple[Tensor, dict[str, list[Tensor]], int]:
    """The model on rates of 1/2: logits, what came to each neuron, and for how many steps."""
    traces = _traces(runner, keep=True)
    calls = _firing(runner, traces, steps, 0.5)
    with evaluating(runner.model), runner.explained(mean.unsqueeze(0)):
        logits = runner.on_rates(mean, calls, steps, length)
    if runner.layout != OWN:  # which may run for T steps, whatever it is told
        expect(traces, steps)
    seen = {name: trace.inputs for name, trace in traces.items()}
    return logits, seen, max(trace.steps for trace in traces.values())


def _two_are_as(one: Tensor, runner: Runner, mean: Tensor, length: int) -> bool:
    """Whether the logits for two steps on even rates are those for one."""
    two, _, ran = _on_even_rates(runner, mean, 2, length)
    # A sum makes it twice as much; rounding, a little more or less.
    return ran == 2 and bool((two - one).norm() <= 0.01 * one.norm())


def _check_the_same(seen: Mapping[str, list[Tensor]], again: Mapping[str, list[Tensor]]) -> None:
    for name, inputs in seen.items():
        pairs = zip(inputs, again[name], strict=False)
        if len(inputs) != len(again[name]) or not all(_close(*pair) for pair in pairs):
            raise SpikestrapError(
                f"bootstrap: the input of {name!r} is another each time that the model runs, in "
                "eval mode too: what is drawn at random is not its mean. Encode inputs at random "
                "before the model and pass (T, N, ...), or check=False"
            )


def _close(a: Tensor, b: Tensor) -> bool:
    # Sums on a GPU may come in another order each time.
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)


def _firing(
    runner: Runner, traces: Mapping[str, Trace], steps: int, rate: float
) -> dict[str, Call]:
    return {
        name: even(neuron, adapter, traces[name], steps, rate)
        for name, neuron, adapter in runner.neurons()
    }


def _traces(runner: Runner, *, keep: bool = False) -> dict[str, Trace]:
    return {name: Trace(keep=keep) for name in runner.names}
