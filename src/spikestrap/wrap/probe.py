"""What has to be found out about a model by running it: how it takes time, and how long on rates.

It runs on spikes and rates that are the same everywhere, without a gradient, in eval mode: what
the curves would give is nothing, while a layer is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import SpikestrapError
from ..evaluating import evaluating
from .layout import OWN, STEP
from .replaced import Call
from .running import Runner
from .unit import Trace, even, silent


@torch.no_grad()
def find_layout(runner: Runner, sequence: Tensor, guessed: bool) -> str:
    """The layout of a model, whose guess may have to be mended; sequence (T, N, ...).

    Raises SpikestrapError where the model does not take time as it should.
    """
    steps, sequence = sequence.shape[0], _other_batch(sequence)
    if guessed and runner.layout == STEP:
        called, name = _most_called(runner, sequence[:1])
        if called == 1:
            return STEP
        if called != runner.time_steps:
            raise SpikestrapError(
                f"bootstrap: one call of the model calls {name!r} {called} times, but "
                f"time_steps={runner.time_steps}: does it run over time by itself? Then give "
                'that number as time_steps, or layout="own" with time_steps=None if it '
                "runs over an input (T, N, ...)"
            )
        runner = replace(runner, layout=OWN)
    if runner.layout != STEP:
        with evaluating(runner.model), runner.explained(sequence):
            runner.logits(sequence, _silent(runner, _traces(runner), steps))
    return runner.layout


@torch.no_grad()
def one_step_does(runner: Runner, mean: Tensor, check: bool) -> bool | None:
    """Whether the model may run on rates for a single step; None if that cannot be seen yet.

    A model that takes time whole may return each step's output, or reduce them itself: to a
    mean, which one step gives as well, or to a sum, which grows with the steps. check: also
    refuse one that draws at random what its neurons get.
    """
    one, seen, _ = _on_even_rates(runner, mean, 1)
    if check:
        _, again, _ = _on_even_rates(runner, mean, 1)
        _check_the_same(seen, again)
    if runner.layout == STEP:
        return True
    static_own = runner.layout == OWN and runner.time_steps is not None
    if static_own and not runner.step_name():
        return runner.time_steps == 1
    two, _, ran = _on_even_rates(runner, mean, 2)
    # A sum makes it twice as much; rounding, a little more or less.
    same = ran == 2 and bool((two - one).norm() <= 0.01 * one.norm())
    if not same and not static_own:
        raise SpikestrapError(
            "bootstrap: on rates, the model's output for two time steps is not that for one; "
            "return the output of each step, or their mean, but not their sum, and encode "
            "inputs at random before the model, not in it"
        )
    return same if one.any() or not same else None


def _other_batch(sequence: Tensor) -> Tensor:
    """A sequence (T, N, ...) with N other than 1 and T, so that a loop over either shows."""
    steps, batch = sequence.shape[:2]
    if batch not in (1, steps):
        return sequence
    if batch - 1 > 1:
        return sequence[:, 1:]
    batch = 2 if steps != 2 else 3
    return sequence[:, :1].expand(-1, batch, *sequence.shape[2:])


def _most_called(runner: Runner, sequence: Tensor) -> tuple[int, str]:
    """How often one call of the model calls a neuron, at most, and which."""
    traces = _traces(runner)
    with evaluating(runner.model), runner.explained(sequence):
        runner.run(sequence, _silent(runner, traces, 1))
    return max((trace.calls, name) for name, trace in traces.items())


def _on_even_rates(
    runner: Runner, mean: Tensor, steps: int
) -> tuple[Tensor, dict[str, Tensor], int]:
    """The model on rates of 1/2: logits, what came to each neuron, and for how many steps."""
    traces = _traces(runner, keep=True)
    calls = {
        name: even(name, neuron, adapter, traces, steps)
        for name, neuron, adapter in runner.neurons()
    }
    with evaluating(runner.model), runner.explained(mean.unsqueeze(0)):
        logits = runner.on_rates(mean, calls, steps)
    seen = {name: torch.cat(trace.inputs) for name, trace in traces.items() if trace.calls}
    return logits, seen, max(trace.steps for trace in traces.values())


def _check_the_same(seen: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> None:
    for name, z in seen.items():
        if not torch.equal(z, again[name]):
            raise SpikestrapError(
                f"bootstrap: the input of {name!r} is another each time that the model runs, in "
                "eval mode too: what is drawn at random is not its mean. Encode inputs at random "
                "before the model and pass (T, N, ...), or check=False"
            )


def _silent(runner: Runner, traces: Mapping[str, Trace], steps: int) -> dict[str, Call]:
    return {
        name: silent(name, neuron, adapter, traces, steps, stops=False)
        for name, neuron, adapter in runner.neurons()
    }


def _traces(runner: Runner, *, keep: bool = False) -> dict[str, Trace]:
    return {name: Trace(keep=keep) for name in runner.names}
