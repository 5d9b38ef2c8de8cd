"""The training loop: bootstrap training of a classifier, on Lightning, with its history."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import processes
from ..errors import SpikestrapError
from ..norm import synchronize
from ..unit import units_of
from .allocator import keep_memory
from .batches import Batches
from .data import Arrays, Splits, check_part, to_input
from .evaluate import device_of
from .extras import require
from .hardware import Hardware
from .history import FittedCurve
from .options import Options

if TYPE_CHECKING:  # Lightning takes a second to import: only where something trains
    import lightning.pytorch as pl

LOGGERS = ("tensorboard", "csv")
_EVALUATION_BATCH = 256


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
        best_epoch: the last one whose SNN accuracy in validation is within a standard error of
            the highest.
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> History:
        """The history that `as_dict` gave."""
        epochs = [Epoch(**epoch) for epoch in values["epochs"]]
        curves = [FittedCurve(**curve) for curve in values["curves"]]
        return cls(epochs, values["best_epoch"], dict(values["seconds"]), curves)


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
    *,
    hardware: Hardware | None = None,
    logger: Any = None,
    checkpoints: Path | None = None,
) -> History:
    """Train a network; it ends with the weights and curves that validated best as an SNN.

    Of epochs that validated as well as the best, within a standard error, it takes the last.
    On a CPU it has the process keep freed memory, see `keep_memory`. Norms are synchronized, see
    `spikestrap.norm.synchronize`: of several processes each takes the whole batch's statistics.

    The same seed gives the same result on the same machine: the order of the images and the
    augmentation come from a generator of their own, dropout from torch's global one, seeded here.

    Args:
        net: called as ``net(x, mode)``, x as `to_input` gives it, gives logits (N, classes).
        splits: its training and validation parts are used, its test part is not.
        options: how to train.
        seed: of everything random here, >= 0.
        on_progress: called after every step and every epoch.
        hardware: on what; None for one process where the network is.
        logger: of Lightning, for what `BootstrapCallback` logs, loss and learning rate.
        checkpoints: folder for checkpoints. A training that was cut off goes on from the newest
            whole one in it, and ends as if it had not been.

    Raises:
        SpikestrapError: the loss is no longer finite, a checkpoint is another training's, the
            training or validation part is empty or not as `Arrays` has it, or the network has
            nothing to train, or only neurons' parameters in an epoch as an ANN.
        KeyboardInterrupt, SystemExit: it was interrupted, the latter with code 143, by SIGTERM.
    """
    lightning = require("lightning.pytorch", "training")
    from .callback import BootstrapCallback
    from .checkpoint import Checkpoints, WholeFiles
    from .module import BootstrapModule
    from .recorder import Recorder

    check_part("train", splits.train, splits.classes)
    check_part("validation", splits.validation, splits.classes)
    if not any(p.requires_grad for p in net.parameters()):
        raise SpikestrapError("net: expected parameters to train, got none that takes a gradient")
    torch.manual_seed(seed)
    synchronize(net)
    device = device_of(net)
    learnable = any(p.requires_grad for _, u in units_of(net) for p in u.parameters())
    bootstrap = BootstrapCallback(options.scheduler())
    recorder = Recorder(bootstrap, len(splits.validation), on_progress)
    callbacks = [bootstrap, recorder]
    batches = Batches(splits.train, options.batch_size, options.augment, seed)
    newest = None
    if checkpoints is not None:
        keeper = Checkpoints(checkpoints, batches)
        newest = keeper.newest()
        callbacks.append(keeper)
    if options.patience is not None:
        callbacks.append(
            lightning.callbacks.EarlyStopping("snn_accuracy", mode="max", patience=options.patience)
        )
    with quiet(), _as_interrupted():
        trainer = _trainer(
            hardware,
            device,
            unused=learnable,
            max_epochs=options.epochs,
            check_val_every_n_epoch=options.validate_every,
            logger=logger or False,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            enable_checkpointing=checkpoints is not None,
            num_sanity_val_steps=0,
        )
        device = trainer.strategy.root_device
        if device.type == "cpu":
            keep_memory()
        validation = _Chunks(splits.validation.to(device))
        trainer.fit(BootstrapModule(net, options), batches.to(device), validation, ckpt_path=newest)
    net.load_state_dict(recorder.best_state)
    net.to(device)
    return recorder.history


def measure(
    net: nn.Module, arrays: Arrays, *, as_ann: bool = True, hardware: Hardware | None = None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Accuracy of a network as an SNN and as an ANN, gap, and event rate; and seconds by mode.

    Args:
        net: called as ``net(x, mode)``.
        arrays: at least one image.
        as_ann: whether its curves hold; without, ann_accuracy and gap are None.
        hardware: on what; None for one process where the network is.
    """
    require("lightning.pytorch", "evaluation")
    from .callback import BootstrapCallback
    from .module import BootstrapModule

    callback = BootstrapCallback(as_ann=as_ann, plots=False)
    device = device_of(net)
    with quiet(), _as_interrupted():
        trainer = _trainer(
            hardware,
            device,
            unused=False,
            logger=False,
            callbacks=[callback],
            enable_checkpointing=False,
        )
        device = trainer.strategy.root_device
        trainer.test(BootstrapModule(net, Options()), _Chunks(arrays.to(device)), verbose=False)
    net.to(device)
    keys = ("snn_accuracy", "ann_accuracy", "gap")
    found: dict[str, Any] = {key: callback.measured.get(key) for key in keys}
    found["event_rate"] = callback.measured.get("event_rate", 0.0)
    return found, dict(callback.clock.seconds)


def _trainer(
    hardware: Hardware | None,
    device: torch.device,
    *,
    unused: bool,
    plugins: Sequence[Any] = (),
    **own: Any,
) -> pl.Trainer:
    """Lightning's Trainer; images come to each process as its share, and it says nothing."""
    from lightning.pytorch import Trainer

    on = hardware or Hardware()
    environment = on.environment()
    return Trainer(
        **on.trainer_options(device, unused),
        plugins=[*plugins, *([] if environment is None else [environment])],
        # In a Slurm job it would load what it finds there before all else; here nothing can lie.
        default_root_dir=os.devnull,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **own,
    )


def make_logger(kind: str, folder: Path, fresh: bool) -> Any:
    """Lightning's logger of that kind, which writes into a folder.

    fresh: of a training that begins, and not one that goes on.
    """
    if kind == "tensorboard":
        require("tensorboard", "--logger tensorboard")
    loggers = require("lightning.pytorch.loggers", "--logger")
    made = {"tensorboard": loggers.TensorBoardLogger, "csv": loggers.CSVLogger}[kind]
    version = ""
    if kind == "csv" and not fresh:
        # It would delete what is there: each time that a training goes on has a folder of its own.
        taken = {path.name for path in folder.glob("resumed-*")}
        version = next(name for n in count(1) if (name := f"resumed-{n}") not in taken)
    return made(str(folder), name="", version=version)


class _Chunks:
    """Images for evaluation, a bounded number at a time; of several processes each has its share.

    Processes may have one chunk more or less than others, or none.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return -(-len(self._mine(self._arrays.y)) // _EVALUATION_BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self._mine(self._arrays.x), self._mine(self._arrays.y)
        parts = zip(x.split(_EVALUATION_BATCH), y.split(_EVALUATION_BATCH), strict=True)
        return ((to_input(images), labels) for images, labels in parts)

    def _mine(self, tensor: Tensor) -> Tensor:
        return tensor[processes.rank() :: processes.count()]


@contextmanager
def _as_interrupted() -> Iterator[None]:
    """What is interrupted ends as other programs do, which Lightning would not have.

    At Ctrl-C it leaves the process, and takes no other one from then on; at SIGTERM it leaves as if
    all had gone well.
    """
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    at_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as left:
        if isinstance(left, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from left
        if isinstance(left.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, at_interrupt)
            raise KeyboardInterrupt from left
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on hardware, workers and what it thinks is worth a tip."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", category=FutureWarning)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
