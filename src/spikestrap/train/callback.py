"""Bootstrap training for any LightningModule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from .. import processes
from ..ann_sampler import AnnSampler
from ..errors import NotFittedError, SpikestrapError, warn
from ..routine import LayerMode, Mode, Scheduler
from ..unit import no_units, units_of
from .clock import Clock
from .curves import curve_figure
from .evaluate import EventRate
from .modes import GivenModes
from .module import BootstrapModule


def classified(module: pl.LightningModule, batch: Any) -> Tensor:
    """Which images of a batch (x, y) a classifier `module(x)` gets right: bool (N,).

    y: whole numbers (N,), or (N, 1). Raises SpikestrapError for others, and for one logit.
    """
    x, y = batch
    logits = module(x)
    matrix = isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] > 1
    whole = isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex())
    if not (matrix and whole and y.shape in (logits.shape[:1], (len(logits), 1))):
        raise SpikestrapError(
            "BootstrapCallback: expected logits (N, K > 1) and whole-number labels (N,), got "
            f"{_described(logits)} and {_described(y)}; give measure=, a function of the module "
            "and a batch to a score of each sample"
        )
    return logits.argmax(1) == y.view(-1)


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{value.dtype} {tuple(value.shape)}"


class BootstrapCallback(pl.Callback):
    """Makes a LightningModule with spikestrap units in it train by bootstrap.

    The module needs no change: its networks, blocks and units get the mode of the schedule at
    each training batch, SNN in validation and test, unless the module's own code names one. The
    mode is also the module's attribute `bootstrap_mode`. An iteration of the schedule is a batch,
    also where gradients are accumulated over several. Samples that the schedule has left pending
    are fitted before each validation.

    A batch that is sampled makes no step, nor does what is accumulated with it: the gradient
    through time grows with T, and a few of those in Adam's moments slow down many steps as an ANN.
    In manual optimization too, where what was accumulated by then is gone after such a batch.
    Once every unit has crossed over, nothing samples: each batch is in SNN mode and makes a step.

    In validation and test it measures the module as an SNN and, once curves are fitted, as an
    ANN, and logs, in percent and percentage points, ``snn_accuracy``, ``ann_accuracy``, ``gap``,
    and as spikes a neuron and step ``event_rate`` and ``event_rate/<unit>``: sums over all
    processes. `EarlyStopping` and `ModelCheckpoint` can monitor them.

    Args:
        scheduler: when to sample, fit, and cross over.
        measure: gives for the module and a batch a score of each sample, (N,), whose mean times
            100 is the accuracy; the default is right or wrong, for batches (x, y) whose y are
            whole numbers (N,), and logits (N, K > 1).
        as_ann: whether to measure it as an ANN as well; its curves hold for one T only.
        plots: whether to draw the curves after each new fit, for loggers that take figures
            (TensorBoard).

    Raises:
        SpikestrapError: the module has no spikestrap units, or what `measure` is given or gives
            is not of these shapes.

    >>> import spikestrap as ss
    >>> callback = BootstrapCallback(ss.Scheduler(num_sample_iter=5, sample_period=5))
    >>> trainer = pl.Trainer(callbacks=callback, logger=False, enable_checkpointing=False,
    ...                      accelerator="cpu", enable_progress_bar=False)
    """

    def __init__(
        self,
        scheduler: Scheduler | None = None,
        *,
        measure: Callable[[pl.LightningModule, Any], Tensor] = classified,
        as_ann: bool = True,
        plots: bool = True,
    ) -> None:
        self.scheduler = scheduler or Scheduler()
        self.measure = measure
        self.as_ann = as_ann
        self.plots = plots
        self.clock = Clock()  # of validation and test: "snn" and "ann"
        self.measured: dict[str, float] = {}  # what the last validation or test logged
        self._modes: GivenModes | None = None
        self._sampled = False  # whether the next step's gradient is of a sampled batch too
        self._clip: int | float | None = None  # the trainer's own
        self._scores: defaultdict[str, float] = defaultdict(float)
        self._rates: EventRate | None = None
        self._drawn = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._clip = trainer.gradient_clip_val
        self._modes = GivenModes(pl_module)
        if not self._modes.units and not isinstance(pl_module, BootstrapModule):
            raise no_units("BootstrapCallback", pl_module)
        self._set(pl_module, LayerMode(Mode.SNN))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._modes is not None:
            self._set(pl_module, LayerMode(Mode.SNN))
            self._modes.remove()
            trainer.gradient_clip_val = self._clip

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        # Also where the user interrupts it, after which there is no teardown.
        self.teardown(trainer, pl_module, "fit")

    def _set(self, module: pl.LightningModule, mode: LayerMode) -> None:
        assert self._modes is not None
        self._modes.current = mode
        module.bootstrap_mode = mode  # type: ignore[assignment]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._only_samples(trainer):
            schedule = self.scheduler
            warn(
                "BootstrapCallback: nothing trains as an ANN: each epoch samples, its first "
                f"num_sample_iter={schedule.num_sample_iter} batches make no step, and it has "
                f"{trainer.num_training_batches}; expected more batches, a smaller "
                "num_sample_iter, or epochs between those that sample (sample_period="
                f"{schedule.sample_period})"
            )

    def _only_samples(self, trainer: pl.Trainer) -> bool:
        """Whether no batch makes a step in all the epochs that are not an SNN's."""
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        if epochs is None or epochs < 0:  # without end: one period is like the next
            epochs = self.scheduler.sample_period
        if batches in (0, math.inf):
            return False
        # A step is left out where any of its batches is sampled, and those come first.
        accumulated = trainer.accumulate_grad_batches
        last = int(batches - 1) // accumulated * accumulated
        modes = {self._mode(epoch, last).base_mode for epoch in range(epochs)}
        return modes - {Mode.SNN} == {Mode.SAMPLE}

    def _mode(self, epoch: int, iteration: int) -> LayerMode:
        assert self._modes is not None
        return self._modes.of(self.scheduler.mode(epoch, iteration))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        mode = self._mode(trainer.current_epoch, batch_idx)
        self._set(pl_module, mode)
        accumulating = batch_idx % trainer.accumulate_grad_batches != 0
        self._sampled = mode.base_mode is Mode.SAMPLE or (self._sampled and accumulating)
        if trainer.gradient_clip_algorithm == "value":  # torch fails where there are no gradients
            trainer.gradient_clip_val = None if self._sampled else self._clip

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._sampled:
            optimizer.zero_grad(set_to_none=True)  # without a gradient nothing moves

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any
    ) -> None:
        if self._sampled and not pl_module.automatic_optimization:
            # What it accumulates itself is not to hold any of this batch's gradient.
            for optimizer in trainer.optimizers:
                optimizer.zero_grad(set_to_none=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for sampler in _samplers(pl_module):
            if sampler.pending:
                sampler.fit()
        self.clock = Clock(pl_module.device, self.clock.seconds)
        self._scores.clear()
        self._rates = EventRate(pl_module)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._set(pl_module, LayerMode(Mode.SNN))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self._rates is not None
        # Around steps Lightning puts the trainer's precision, but not around hooks.
        precision = trainer.precision_plugin.forward_context
        with self._rates, self.clock("snn"), precision():
            scores = self._measure(pl_module, batch)
        self._scores["snn"] += float(scores.sum())
        self._scores["samples"] += len(scores)
        if self.as_ann:
            self._set(pl_module, LayerMode(Mode.ANN))
            # Before the first fit, or trained as an SNN throughout, there are no curves.
            with self.clock("ann"), precision(), suppress(NotFittedError):
                self._scores["ann"] += float(self._measure(pl_module, batch).sum())
                self._scores["as_ann"] += len(scores)
            self._set(pl_module, LayerMode(Mode.SNN))  # for hooks that come after this one

    def _measure(self, module: pl.LightningModule, batch: Any) -> Tensor:
        scores = self.measure(module, batch)
        if not isinstance(scores, Tensor) or scores.ndim != 1:
            raise SpikestrapError(
                "BootstrapCallback: measure: expected a score of each sample, (N,), got "
                f"{_described(scores)}"
            )
        return scores

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.measured = self._summary(pl_module)
        pl_module.log_dict(self.measured)
        if self.plots:
            self._draw(trainer, pl_module)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _summary(self, module: pl.LightningModule) -> dict[str, float]:
        assert self._rates is not None
        ours = [self._scores[key] for key in ("snn", "samples", "ann", "as_ann")]
        events = self._rates.counts  # unit: (spikes, neurons times steps)
        flat = [*ours, *(value for pair in events.values() for value in pair)]
        sums = torch.tensor(flat, dtype=torch.float64)
        snn, samples, ann, as_ann, *rest = processes.add_up(sums.to(module.device)).tolist()
        found = {"snn_accuracy": 100 * snn / samples}
        if as_ann:
            found["ann_accuracy"] = 100 * ann / as_ann
            found["gap"] = found["ann_accuracy"] - found["snn_accuracy"]
        spikes, places = rest[::2], rest[1::2]
        if sum(places):
            found["event_rate"] = sum(spikes) / sum(places)
        for name, number, place in zip(events, spikes, places, strict=True):
            if place:
                found[f"event_rate/{name}"] = number / place
        return found

    def _draw(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        fits = sum(int(sampler.fitted) for sampler in _samplers(module))
        if not trainer.is_global_zero or fits == self._drawn:
            return
        self._drawn = fits
        for logger in trainer.loggers:
            experiment = getattr(logger, "experiment", None)
            if experiment is not None and hasattr(experiment, "add_figure"):
                figure = curve_figure(list(units_of(module)))
                experiment.add_figure("curves", figure, trainer.global_step)


def _samplers(module: torch.nn.Module) -> list[AnnSampler]:
    return [m for m in module.modules() if isinstance(m, AnnSampler)]
