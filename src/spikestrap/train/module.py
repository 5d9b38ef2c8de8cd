"""A classifier as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes
from ..errors import SpikestrapError
from ..rate_gradient import rate_based
from ..routine import LayerMode, Mode
from .options import Options

_WARMUP = 0.2  # the part of all steps in which the learning rate rises


class BootstrapModule(pl.LightningModule):
    """Trains a classifier by AdamW on the cross entropy, under a one-cycle learning rate.

    `BootstrapCallback` sets the mode at each batch, and measures in validation and test.

    Args:
        net: called as ``net(x, mode)``, gives logits (N, classes); batches are (x, y).
        options: learning rate, weight decay, label smoothing and the gradient of the epochs as
            an SNN are taken from them.

    Raises:
        SpikestrapError: the loss is no longer finite, or depends on nothing to train.

    >>> import spikestrap as ss
    >>> net = ss.Network(ss.block.cuba.Dense(dict(threshold=1.0), 64, 10), time_steps=4)
    >>> module = BootstrapModule(net, Options())
    >>> module(torch.rand(5, 64)).shape                  # as an SNN, where nothing says otherwise
    torch.Size([5, 10])
    """

    def __init__(self, net: nn.Module, options: Options) -> None:
        super().__init__()
        self.net = net
        self.options = options
        self.bootstrap_mode = LayerMode(Mode.SNN)
        self._by_rate = options.snn_gradient == "rate" and options.snn_epochs < options.epochs
        self.loss = math.nan  # of the last step, over all processes

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes each hook that it calls, some fifty times a step: past torch's search
        # for parameters and submodules that saves about a tenth of what it adds to a step.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) in the current mode."""
        mode = self.bootstrap_mode
        if self.training and self._by_rate and mode == LayerMode(Mode.SNN):
            logits: Tensor = rate_based(self.net, x)
            return logits
        # One mode for all is what any network takes, and the same to those that take one each.
        logits = self.net(x, mode if self.training else mode.base_mode)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """The loss: the mean over a batch and, by the sum of their gradients, all processes.

        None for a batch that is sampled: `BootstrapCallback` leaves that step out, so it needs no
        gradient. Over several processes, where Lightning takes no None, there is one all the same.
        """
        sampled = self.bootstrap_mode.base_mode is Mode.SAMPLE and processes.count() == 1
        with torch.set_grad_enabled(not sampled):
            loss = self._loss(*batch)
        if not math.isfinite(self.loss):
            raise SpikestrapError(
                f"training: expected a finite loss, got {self.loss} in mode "
                f"{self.bootstrap_mode}; a smaller learning rate may help"
            )
        if not sampled and not loss.requires_grad:
            raise SpikestrapError(
                "training: expected a loss of parameters to train, got one in mode "
                f"{self.bootstrap_mode} that has none; those of neurons learn as an SNN alone, as "
                "with snn_epochs for all epochs"
            )
        return None if sampled else loss

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(self(x), y, label_smoothing=self.options.label_smoothing)
        if processes.count() > 1:
            # Processes count alike in the mean of their gradients; images should.
            sums = processes.add_up(torch.stack([loss.detach() * len(y), loss.new_tensor(len(y))]))
            self.loss = float(sums[0] / sums[1])
            loss = loss * (len(y) * processes.count() / sums[1])
        else:
            self.loss = loss.item()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: the callback measures."""

    test_step = validation_step

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **more: Any) -> Any:
        """From a checkpoint; SpikestrapError where it is that of another network."""
        try:
            return super().load_state_dict(state_dict, *arguments, **more)
        except RuntimeError as error:
            raise SpikestrapError(f"checkpoint: expected one of this training: {error}") from error

    def configure_optimizers(self) -> Any:
        """AdamW, with weight decay on weights only, and the schedule, a step at a time."""
        weights = [p for p in self.net.parameters() if p.ndim > 1]
        others = [p for p in self.net.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": weights},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.options.learning_rate,
            weight_decay=self.options.weight_decay,
            fused=True,  # on a CPU, where it is not the default, less than half the time
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def one_cycle(step: int, total: int) -> float:
    """The learning rate of a step, relative to its peak: a linear rise, then a cosine to 0.

    >>> [round(one_cycle(step, 10), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = _WARMUP * total
    if step < rise:
        return min(1.0, (step + 1) / rise)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))
