"""Batch norm in the user's model: statistics of time means, in spiking passes as in others.

In a spiking pass each batch norm uses its running statistics, as in evaluation, and they
move, after the pass, by the time means of its inputs. A pass on rates sees time means only,
so there it runs by its own code. One set of running statistics serves both, and the norm of
the mean is the mean of the norms; see `spikestrap.norm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .layout import BATCH_FIRST, FOLDED

Call = Callable[..., Any]


class TimeMeans:
    """Mean over time of what one batch norm sees in a spiking pass.

    steps, batch: T and N of the pass. layout: in which time is folded into an input, if it is.
    """

    def __init__(self, norm: _BatchNorm, steps: int, batch: int, layout: str) -> None:
        self.norm, self.steps, self.batch, self.layout = norm, steps, batch, layout
        self.original = norm.forward
        # Copies, as the gradient needs those that the pass has gone by, and `update` moves them.
        self.statistics = {
            name: buffer.clone()
            for name in ("running_mean", "running_var")
            if (buffer := norm._buffers[name]) is not None
        }
        self.total: Tensor | None = None
        self.calls = 0

    def __call__(self, x: Tensor) -> Any:
        """In place of the norm's forward: by the running statistics."""
        with torch.no_grad():
            mean = self._mean(x.detach())
            self.total = mean.clone() if self.total is None else self.total + mean
        self.calls += 1
        buffers = dict(self.norm._buffers)
        self.norm._buffers.update(self.statistics)
        self.norm.training = False
        try:
            return self.original(x)
        finally:
            self.norm._buffers.update(buffers)
            self.norm.training = True

    def _mean(self, x: Tensor) -> Tensor:
        if getattr(self.norm, "step_mode", "s") == "m":
            return x.mean(0, keepdim=True)
        if self.steps > 1 and x.shape[0] == self.steps * self.batch:
            if self.layout in (BATCH_FIRST, FOLDED):
                return x.unflatten(0, (self.batch, self.steps)).mean(1)
            return x.unflatten(0, (self.steps, self.batch)).mean(0)
        return x

    @torch.no_grad()
    def update(self) -> None:
        """After the pass: moves the running statistics, by the norm's own code."""
        if self.total is None:
            return
        momentum, first = self.norm.momentum, self.norm.num_batches_tracked == 0
        # Nothing to stay close to: the first batch sets them.
        self.norm.momentum = 1.0 if first else momentum
        try:
            self.original(self.total / self.calls)
        finally:
            self.norm.momentum = momentum
