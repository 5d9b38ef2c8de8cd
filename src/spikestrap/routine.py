"""Which unit runs in which mode, and when: modes, a network's modes, their schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain, repeat
from typing import Any

from .counts import whole_number, whole_or_none
from .errors import SpikestrapError


class Mode(Enum):
    """What a bootstrap unit does with its input.

    SNN runs the neuron; SAMPLE runs it and records (mean input, rate); FIT fits the curve
    to what was recorded and runs the curve; ANN runs the curve. Iterating gives it for every unit,
    without end, as a `LayerMode` does: a forward of one's own takes either.
    """

    SNN = "snn"
    ANN = "ann"
    SAMPLE = "sample"
    FIT = "fit"

    @property
    def spiking(self) -> bool:
        """Whether the neuron runs: time is there, (T, N, ...), not averaged away.

        >>> [mode.name for mode in Mode if mode.spiking]
        ['SNN', 'SAMPLE']
        """
        return self in (Mode.SNN, Mode.SAMPLE)

    @classmethod
    def of(cls, mode: Any) -> Mode:
        """The mode itself, or SpikestrapError."""
        if isinstance(mode, cls):
            return mode
        known = ", ".join(f"Mode.{m.name}" for m in cls)
        each = "; iterate over it, as in zip(blocks, modes)" if isinstance(mode, LayerMode) else ""
        raise SpikestrapError(f"mode must be one of {known}; got {mode!r}{each}")

    def __iter__(self) -> Iterator[Mode]:
        return iter(LayerMode(self))

    def __len__(self) -> int:
        return len(LayerMode(self))  # raises

    def __bool__(self) -> bool:
        return True


mode = Mode
"""`ss.mode.SNN` reads as in lava.lib.dl.bootstrap."""


@dataclass(frozen=True)
class LayerMode:
    """The mode of every unit of a network: SNN below the crossover, `base_mode` from there.

    Iterating gives one mode a unit, from the input on, without end and as often as wanted. So it
    has no length, and `list(modes)`, which would fill the memory, raises SpikestrapError.

    >>> modes = LayerMode(Mode.ANN, crossover=1)
    >>> [m.name for _, m in zip("abc", modes)], [m.name for _, m in zip("ab", modes)]
    (['SNN', 'ANN', 'ANN'], ['SNN', 'ANN'])
    """

    base_mode: Mode
    crossover: int = 0

    def __post_init__(self) -> None:
        Mode.of(self.base_mode)
        object.__setattr__(self, "crossover", whole_number("crossover", self.crossover, 0))

    def __iter__(self) -> Iterator[Mode]:
        return chain(repeat(Mode.SNN, self.crossover), repeat(self.base_mode))

    def __len__(self) -> int:
        # `list` and `tuple` ask before they start, and would never end.
        raise SpikestrapError(
            f"LayerMode: the modes {str(self)!r} go on without end, have no length and make no "
            "list; expected them zipped with the blocks, as in zip(blocks, modes)"
        )

    def __bool__(self) -> bool:
        return True  # and not what its length says

    def __str__(self) -> str:
        crossed = self.crossover and self.base_mode is not Mode.SNN
        below = f", SNN below unit {self.crossover}" if crossed else ""
        return f"{self.base_mode.name}{below}"


@dataclass(frozen=True)
class Scheduler:
    """When to sample, fit, train as ANN, and cross over: a pure function of the time.

    Every `sample_period` epochs, counted from 0, the first `num_sample_iter` iterations
    sample and the next one fits; all others run the ANN. A unit from the input on crosses
    over to SNN for good at each epoch in `crossover_epochs` (an epoch named twice moves
    two). From epoch `snn_from` on everything is SNN. Validation (train=False) is SNN.

    Nothing is remembered between calls, so calling twice, out of order or after a resume
    gives the same modes.

    >>> scheduler = Scheduler(num_sample_iter=2, sample_period=5, crossover_epochs=[1])
    >>> [scheduler.mode(0, i).base_mode.name for i in range(4)]
    ['SAMPLE', 'SAMPLE', 'FIT', 'ANN']
    >>> str(scheduler.mode(1, 0))
    'ANN, SNN below unit 1'
    >>> str(scheduler.mode(1, 0, train=False))
    'SNN'
    """

    num_sample_iter: int = 10
    sample_period: int = 10
    crossover_epochs: Iterable[int] | None = None
    snn_from: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_sample_iter", "sample_period"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        object.__setattr__(self, "snn_from", whole_or_none("snn_from", self.snn_from, 0))
        if self.crossover_epochs is not None:
            if not isinstance(self.crossover_epochs, Iterable):
                raise SpikestrapError(
                    "crossover_epochs must be None or a collection of epochs, "
                    f"got {self.crossover_epochs!r}"
                )
            # A copy: the caller's list may change, or be an iterator.
            name = "an entry of crossover_epochs"
            epochs = tuple(whole_number(name, epoch, 0) for epoch in self.crossover_epochs)
            object.__setattr__(self, "crossover_epochs", epochs)

    def mode(self, epoch: int, iteration: int, train: bool = True) -> LayerMode:
        """The modes at this iteration of this epoch, both counted from 0."""
        epoch = whole_number("epoch", epoch, 0)
        iteration = whole_number("iteration", iteration, 0)
        if not train or (self.snn_from is not None and epoch >= self.snn_from):
            return LayerMode(Mode.SNN)
        base_mode = Mode.ANN
        if epoch % self.sample_period == 0:
            if iteration < self.num_sample_iter:
                base_mode = Mode.SAMPLE
            elif iteration == self.num_sample_iter:
                base_mode = Mode.FIT
        crossover = sum(start <= epoch for start in self.crossover_epochs or ())
        return LayerMode(base_mode, crossover)
