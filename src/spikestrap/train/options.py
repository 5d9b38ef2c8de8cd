"""What a training run may be told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ..counts import finite_number, whole_number, whole_or_none
from ..errors import SpikestrapError
from ..routine import Scheduler
from .augment import Augment

SNN_GRADIENTS = ("surrogate", "rate")


@dataclass(frozen=True)
class Options:
    """How a network is trained; all of it that does not lie in the network or the data.

    Attributes:
        epochs: passes over the training part.
        batch_size: images a step.
        learning_rate: the peak of the one-cycle schedule.
        weight_decay: AdamW's, on weights only, not on biases, norms and neuron parameters.
        label_smoothing: the probability that the loss spreads over all classes.
        augment: random transform of the training images; None for none.
        num_sample_iter, sample_period, crossover_epochs: the scheduler's.
        snn_epochs: so many epochs at the end train as an SNN throughout.
        snn_gradient: how those get their gradient: "surrogate", through all time steps, or "rate",
            through the fitted curves (see `spikestrap.rate_based`), unless no epoch fits any.
        validate_every: epochs from one validation to the next; the last epoch is always validated.
        patience: stop early after so many validations without a better SNN accuracy; None for not.

    Raises:
        SpikestrapError: an option is out of range.

    >>> Options(epochs=0)
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: epochs must be a whole number >= 1, got 0
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augment: Augment | None = None
    num_sample_iter: int = 10
    sample_period: int = 1
    crossover_epochs: Collection[int] | None = None
    snn_epochs: int = 0
    snn_gradient: str = "surrogate"
    validate_every: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        low = {"epochs": 1, "batch_size": 1, "validate_every": 1, "snn_epochs": 0}
        for name, least in low.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        object.__setattr__(self, "patience", whole_or_none("patience", self.patience, 1))
        if self.snn_gradient not in SNN_GRADIENTS:
            raise SpikestrapError(
                f"snn_gradient: expected one of {', '.join(SNN_GRADIENTS)}, "
                f"got {self.snn_gradient!r}"
            )
        for name in ("learning_rate", "weight_decay", "label_smoothing"):
            most = 1.0 if name == "label_smoothing" else float("inf")
            object.__setattr__(self, name, finite_number(name, getattr(self, name), 0.0, most))

    def for_epochs(self, epochs: int | None) -> Options:
        """The same for so many epochs, None for its own; of fewer, as large a share as an SNN.

        >>> own = Options(epochs=30, snn_epochs=8)
        >>> [own.for_epochs(epochs).snn_epochs for epochs in (1, 3, 15, 30, 60)]
        [0, 1, 4, 8, 8]
        """
        if epochs is None:
            return self
        share = min(epochs / self.epochs, 1.0)
        changed = replace(self, epochs=epochs)  # says what is wrong with the number
        return replace(changed, snn_epochs=round(share * self.snn_epochs))

    def given(self, **values: Any) -> Options:
        """The same with other values; None keeps the one it has.

        >>> other = Options(batch_size=32).given(batch_size=None, learning_rate=0.1)
        >>> other.batch_size, other.learning_rate
        (32, 0.1)
        """
        return replace(self, **{name: x for name, x in values.items() if x is not None})

    def scheduler(self) -> Scheduler:
        """When to sample, fit, cross over and train as an SNN.

        >>> Options(epochs=10, snn_epochs=1).scheduler().snn_from
        9
        """
        return Scheduler(
            num_sample_iter=self.num_sample_iter,
            sample_period=self.sample_period,
            crossover_epochs=self.crossover_epochs,
            snn_from=max(0, self.epochs - self.snn_epochs),
        )
