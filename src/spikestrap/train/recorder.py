"""What a training gave, noted as it goes: history, seconds by mode, the best epoch's state."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl

from .callback import BootstrapCallback
from .clock import Clock
from .history import record_curves
from .loop import Epoch, History, Progress
from .module import BootstrapModule


class Recorder(pl.Callback):
    """Keeps the history of a `BootstrapModule`'s training, across interruptions too.

    Kept is the last epoch whose SNN accuracy in validation is within a standard error of the
    highest: of those that so few images cannot tell apart, the one that trained longest (after
    the one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984).

    Args:
        callback: which measures it.
        images: how many it is validated on.
        on_progress: called after every step and every epoch.
    """

    def __init__(
        self, callback: BootstrapCallback, images: int, on_progress: Callable[[Progress], None]
    ) -> None:
        self._callback = callback
        self._images = images
        self.history = History()
        self.best_state: dict[str, Any] = {}
        self._best_accuracy = -math.inf
        self._on_progress = on_progress
        self._clock = Clock()
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._losses: list[float] = []
        self._steps: Counter[str] = Counter()
        self._start = time.perf_counter()
        self._before = dict(self._clock.seconds)
        self._validated: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = Clock(pl_module.device, self._clock.seconds)
        # As if what was done before an interruption had been done just now.
        self._fit_start = time.perf_counter() - self.history.seconds.get("total", 0.0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_epoch()
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1  # the last epoch is always validated

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any
    ) -> None:
        # Of the step to come: once it is made, the schedule says that of the next one.
        self._rate = float(trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0])
        self._clock.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, BootstrapModule)
        mode = pl_module.bootstrap_mode
        kind = mode.base_mode.value
        self._clock.stop(kind)
        self._steps[kind] += 1
        self._losses.append(pl_module.loss)
        self._progress = Progress(
            trainer.current_epoch,
            trainer.max_epochs or 0,
            batch_idx,
            int(trainer.num_training_batches),
            str(mode),
            pl_module.loss,
        )
        if trainer.is_global_zero:
            self._on_progress(self._progress)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.start()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, BootstrapModule)
        self._clock.stop("evaluation")
        self._validated = self._callback.measured
        accuracy = self._validated["snn_accuracy"]
        self._best_accuracy = max(self._best_accuracy, accuracy)
        if accuracy >= self._best_accuracy - self._standard_error():
            self.history.best_epoch = trainer.current_epoch
            state = pl_module.net.state_dict()
            self.best_state = {name: value.clone() for name, value in state.items()}

    def _standard_error(self) -> float:
        """Of the highest accuracy, in percentage points: that of a share of so many images."""
        return math.sqrt(self._best_accuracy * (100 - self._best_accuracy) / self._images)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._losses:
            return  # a resumed training ends the epoch once more after which it was cut off
        record = Epoch(
            trainer.current_epoch,
            sum(self._losses) / len(self._losses),
            self._rate,
            dict(self._steps),
            time.perf_counter() - self._start,
            self._validated.get("snn_accuracy"),
            self._validated.get("ann_accuracy"),
            self._clock.since(self._before),
        )
        self.history.epochs.append(record)
        assert isinstance(pl_module, BootstrapModule)
        record_curves(self.history.curves, pl_module.net, trainer.current_epoch)
        self.history.seconds = {
            **self._clock.seconds,
            "total": time.perf_counter() - self._fit_start,
        }
        for logger in trainer.loggers:
            values = {"loss": record.loss, "learning_rate": record.learning_rate}
            logger.log_metrics(values, step=trainer.global_step)
        if trainer.is_global_zero:
            self._on_progress(replace(self._progress, finished=record))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.history.seconds["total"] = time.perf_counter() - self._fit_start

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history.as_dict(),
            "best_accuracy": self._best_accuracy,
            "best_state": self.best_state,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = History.from_dict(state_dict["history"])
        self._best_accuracy = state_dict["best_accuracy"]
        self.best_state = state_dict["best_state"]
        self._clock.seconds.update(self.history.seconds)
        self._clock.seconds.pop("total", None)  # no mode's
