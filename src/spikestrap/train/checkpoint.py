"""Checkpoints that are whole or not there, and what a training needs to go on from one."""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from .. import processes
from ..errors import SpikestrapError, warn
from ..files import write_file
from ..random_state import random_state, set_random_state
from .batches import Batches
from .run import BEFORE, NEWEST

_SHARE = 0.05  # of a training's time that may go into writing checkpoints


class WholeFiles(TorchCheckpointIO):
    """For `Trainer(plugins=...)`: writes checkpoints whole or not at all, reads tensors only.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     WholeFiles().save_checkpoint({"epoch": 3}, f"{folder}/last.ckpt")
    ...     WholeFiles().load_checkpoint(f"{folder}/last.ckpt")
    {'epoch': 3}
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()  # writing itself, torch would not say what the system refused
        torch.save(checkpoint, content)
        write_file(Path(path), content.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged or foreign file makes torch raise all sorts
            raise SpikestrapError(
                f"{path}: expected a checkpoint, got what cannot be read ({type(error).__name__})"
            ) from error


class Checkpoints(Checkpoint):
    """Saves a training at the end of an epoch, and takes it up from there to the bit.

    The newest checkpoint is ``last.ckpt``, the one before it ``previous.ckpt``; the last epoch is
    always saved, earlier ones as long as that takes little of the time. Beside what Lightning
    saves there are the random states, each process's own, and the order of the data.

    Args:
        folder: where they are, the same for all processes.
        batches: whose order is saved; None for a loader that needs none.
    """

    def __init__(self, folder: str | Path, batches: Batches | None = None) -> None:
        self._folder = Path(folder)
        self._batches = batches
        self._restored: dict[str, Any] | None = None
        self._took, self._ended = 0.0, time.perf_counter()

    def newest(self) -> Path | None:
        """The newest whole checkpoint; None where there is none at all.

        Warns, with its name, of one that is damaged. Raises SpikestrapError where all are.
        """
        damaged: list[tuple[Path, str]] = []
        for name in (NEWEST, BEFORE):
            path = self._folder / name
            if not path.exists():
                continue
            if not (why := _damage(path)):
                for bad, reason in damaged:
                    warn(f"{bad}: damaged ({reason}); going on from the one before it, {path}")
                return path
            damaged.append((path, why))
        if damaged:
            raise SpikestrapError("; ".join(f"{path}: damaged ({why})" for path, why in damaged))
        return None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._restored is None:
            return
        states = self._restored["random"]
        if len(states) == processes.count():
            set_random_state(states[processes.rank()])
        if self._batches is not None and self._restored["order"] is not None:
            self._batches.generator.set_state(self._restored["order"])
        # A DataLoader draws as a pass begins. Lightning began the first one before this hook.
        iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        for stopping in trainer.early_stopping_callbacks:
            # One that ended the training ends it again.
            if isinstance(stopping, EarlyStopping) and stopping.wait_count >= stopping.patience:
                trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        ends = (
            trainer.should_stop
            or trainer.current_epoch + 1 == trainer.max_epochs
            or 0 < trainer.max_steps <= trainer.global_step
        )
        due = ends or self._took <= _SHARE * (now - self._ended)
        if not trainer.strategy.broadcast(due):
            return
        newest = self._folder / NEWEST
        if trainer.is_global_zero and newest.exists():
            os.replace(newest, self._folder / BEFORE)
        trainer.save_checkpoint(newest)
        self._ended = time.perf_counter()
        self._took = self._ended - now

    def state_dict(self) -> dict[str, Any]:
        states: list[Any] = [random_state()]
        if processes.count() > 1:
            states = [None] * processes.count()
            dist.all_gather_object(states, random_state())
        order = None if self._batches is None else self._batches.generator.get_state()
        return {"random": states, "order": order}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, by the checksums in it; None if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"wrong checksum of {bad}"
