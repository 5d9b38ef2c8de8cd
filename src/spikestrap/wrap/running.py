"""Runs the user's model once, with other calls in the place of its neurons'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import SpikestrapError
from ..timeaxis import hold
from .adapter import adapter_of, libraries
from .drive import (
    TELL_STEPS,
    Begin,
    check_logits,
    explained,
    laid_out,
    run,
    step_name,
    steps_set,
)
from .find import Found
from .layout import OWN, STEP
from .replaced import Call, replaced, time_means


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Runner:
    """A model, the names of its neurons in their order, and how it takes time.

    time_steps: None where inputs have time themselves. told: whether a model with an attribute
    for its number of steps runs by it.
    """

    model: nn.Module
    names: Sequence[str]
    layout: str
    time_steps: int | None
    told: bool = True

    def neurons(self) -> list[Found]:
        """Looked up in the model at each call: a copy of it has copied them too."""
        known = libraries()
        found = []
        for name in self.names:
            neuron = self.model.get_submodule(name)
            adapter = adapter_of(neuron, known)
            if adapter is None:
                raise SpikestrapError(f"bootstrap: {name!r} is no neuron any more")
            found.append(Found(name, neuron, adapter))
        return found

    def run(self, sequence: Tensor, calls: Mapping[str, Call], begin: Begin = _nothing) -> Any:
        """The model's output for (t, N, ...), averaged over time, with these calls.

        begin: called before each call of the model.
        """
        with replaced(self.model, self.neurons(), calls):
            return run(self.model, sequence, self.layout, self.time_steps is not None, begin)

    def logits(
        self, sequence: Tensor, calls: Mapping[str, Call], begin: Begin = _nothing
    ) -> Tensor:
        """The same, (N, classes); SpikestrapError where the output is none."""
        return check_logits(self.run(sequence, calls, begin), sequence.shape[1], self.layout)

    def on_rates(self, mean: Tensor, calls: Mapping[str, Call], steps: int, length: int) -> Tensor:
        """Logits for means (N, ...) over `length` time steps, as if held for so many steps.

        A model that has its number of steps itself, to loop or to unfold time by, is told so, in
        the attribute that has `length`.
        """
        name = self.step_name(length) if self.told and self.layout != STEP else None
        with steps_set(self.model, name, steps):
            output = self.run(hold(mean, steps), calls)
        # Without such an attribute one that unfolds time by its own number makes fewer rows of it.
        hint = "" if self.layout == STEP or name else f"; on rates T is {steps}: {TELL_STEPS}"
        return check_logits(output, mean.shape[0], self.layout, hint)

    def step_name(self, length: int) -> str | None:
        """Where a model that takes time whole has its number of steps."""
        return step_name(self.model, length)

    def norms(self, sequence: Tensor, moving: bool = True) -> AbstractContextManager[Begin]:
        """Batch norms go by time means; their running statistics move in the end, if `moving`.

        What it yields is the `begin` of the run within.
        """
        steps, batch = sequence.shape[:2]
        layout = self.layout
        if layout == OWN:  # then as its neurons have time folded
            folded = {adapter.layout(neuron) for _, neuron, adapter in self.neurons()} - {STEP}
            layout = folded.pop() if len(folded) == 1 else OWN
        return time_means(self.model, steps, batch, layout, moving)

    def explained(self, sequence: Tensor) -> AbstractContextManager[None]:
        """Whatever fails in the model, it may be that it takes time in another way."""
        shape = laid_out(sequence, self.layout, self.time_steps is not None).shape
        return explained(tuple(shape), self.layout)
