"""The training loop: bootstrap training of a classifier, with its clock and its history."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import NotFittedError, SpikestrapError
from ..routine import LayerMode, Mode, Scheduler
from .batches import Batches
from .clock import Clock
from .data import Arrays, Splits
from .evaluate import device_of, evaluate
from .history import FittedCurve, record_curves
from .options import Options

_WARMUP = 0.2  # the part of all steps in which the learning rate rises


@dataclass
class Epoch:
    """What one epoch gave.

    Attributes:
        epoch: from 0.
        loss: mean over the epoch's steps.
        learning_rate: of the epoch's last step.
        steps: how many by mode, as ``{"sample": 10, "fit": 1, "ann": 204}``.
        seconds: of the whole epoch, validation included.
        snn_accuracy, ann_accuracy: of the validation part, in percent; None where not validated,
            or, as an ANN, where no curve is fitted yet.
        seconds_by_mode: as those of the `History`, of this epoch alone and in no order.
    """

    epoch: int
    loss: float
    learning_rate: float
    steps: dict[str, int]
    seconds: float
    snn_accuracy: float | None = None
    ann_accuracy: float | None = None
    seconds_by_mode: dict[str, float] = field(default_factory=dict)


@dataclass
class History:
    """What a training gave; the network itself holds the best epoch's weights and curves.

    Attributes:
        epochs: one record an epoch.
        best_epoch: the one with the highest SNN validation accuracy, the last of equals.
        seconds: by mode as ``snn``, ``sample``, ``fit``, ``ann``, then ``evaluation``, and
            ``total``, which also holds what lies between.
        curves: as fitted over the epochs.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    seconds: dict[str, float] = field(default_factory=dict)
    curves: list[FittedCurve] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The history in plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where a training stands: told after each step, and once more after each epoch.

    Attributes:
        epoch, epochs: the current one, from 0, and how many there will be.
        step, steps: the same within the epoch.
        mode: of the step, readable.
        loss: of the step.
        finished: the epoch's record at its end, None before.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    mode: str
    loss: float
    finished: Epoch | None = None


def fit(
    net: nn.Module,
    splits: Splits,
    options: Options,
    seed: int = 0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> History:
    """Train a network; it ends with the weights and curves that validated best as an SNN.

    The same seed gives the same result on the same machine: the order of the images and the
    augmentation come from a generator of their own, dropout from torch's global one, seeded here.

    Args:
        net: called as ``net(x, mode)``, x (N, C, H, W) in [0, 1], gives logits (N, classes).
        splits: its training and validation parts are used, its test part is not.
        options: how to train.
        seed: of everything random here, >= 0.
        on_progress: called after every step and every epoch.

    Raises:
        SpikestrapError: the loss is no longer finite.
    """
    torch.manual_seed(seed)
    device = device_of(net)
    validation = splits.validation.to(device)
    batches = Batches(splits.train.to(device), options.batch_size, options.augment, seed)
    scheduler = Scheduler(
        num_sample_iter=options.num_sample_iter,
        sample_period=options.sample_period,
        crossover_epochs=options.crossover_epochs,
        snn_from=max(0, options.epochs - options.snn_epochs),
    )
    step = _Step(net, options, total=options.epochs * len(batches))
    clock, history, best = Clock(device), History(), _Best()
    start = time.perf_counter()
    for epoch in range(options.epochs):
        epoch_start, before = time.perf_counter(), dict(clock.seconds)
        losses: list[float] = []
        steps: Counter[str] = Counter()
        net.train()
        for i, (x, y) in enumerate(batches):
            mode = scheduler.mode(epoch, i, train=True)
            kind = mode.base_mode.name.lower()
            with clock(kind):
                losses.append(step(x, y, mode))
            steps[kind] += 1
            progress = Progress(epoch, options.epochs, i, len(batches), str(mode), losses[-1])
            on_progress(progress)
        record = Epoch(epoch, sum(losses) / len(losses), step.learning_rate, dict(steps), 0.0)
        if (epoch + 1) % options.validate_every == 0 or epoch + 1 == options.epochs:
            with clock("evaluation"):
                record.ann_accuracy, record.snn_accuracy = _validate(net, validation)
            best.offer(epoch, record.snn_accuracy, net)
        record.seconds = time.perf_counter() - epoch_start
        record.seconds_by_mode = clock.since(before)
        record_curves(history.curves, net, epoch)
        history.epochs.append(record)
        on_progress(replace(progress, finished=record))
    history.best_epoch = best.epoch
    net.load_state_dict(best.state)
    history.seconds = {**clock.seconds, "total": time.perf_counter() - start}
    return history


class _Step:
    """One step of AdamW on the cross entropy, under a one-cycle learning rate."""

    def __init__(self, net: nn.Module, options: Options, total: int) -> None:
        weights = [p for p in net.parameters() if p.ndim > 1]
        others = [p for p in net.parameters() if p.ndim <= 1]
        self._net = net
        self._smoothing = options.label_smoothing
        groups: list[dict[str, Any]] = [
            {"params": weights},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(
            groups,
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,  # on a CPU, where it is not the default, less than half the time
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: one_cycle(step, total)
        )

    @property
    def learning_rate(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    def __call__(self, x: Tensor, y: Tensor, mode: LayerMode) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self._net(x, mode), y, label_smoothing=self._smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise SpikestrapError(
                f"training: expected a finite loss, got {value} in mode {mode}; "
                f"a smaller learning rate may help"
            )
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        return value


class _Best:
    """The state of the epoch that validated best, the last of equals: it trained longest."""

    def __init__(self) -> None:
        self.epoch = -1
        self.accuracy = -math.inf
        self.state: dict[str, Any] = {}

    def offer(self, epoch: int, accuracy: float, net: nn.Module) -> None:
        if accuracy >= self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            self.state = {name: value.clone() for name, value in net.state_dict().items()}


def _validate(net: nn.Module, validation: Arrays) -> tuple[float | None, float]:
    """ANN and SNN accuracy, in percent.

    The ANN first: it fits its curves where samples are pending, and they are part of the state.
    """
    try:
        ann = evaluate(net, validation, Mode.ANN)
    except NotFittedError:
        ann = None
    return ann, evaluate(net, validation, Mode.SNN)


def one_cycle(step: int, total: int) -> float:
    """The learning rate of a step, relative to its peak: a linear rise, then a cosine to 0.

    >>> [round(one_cycle(step, 10), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = _WARMUP * total
    if step < rise:
        return min(1.0, (step + 1) / rise)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))
