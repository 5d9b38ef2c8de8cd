"""Batch norm in the user's model: statistics of time means, in spiking passes as in others.

In a spiking pass each batch norm uses its running statistics, as in evaluation, and they
move, after the pass, by the time means of its inputs. A pass on rates sees time means only,
so there it runs by its own code. One set of running statistics serves both, and the norm of
the mean is the mean of the norms; see `spikestrap.norm`.

The gradient of a spiking pass goes through the statistics of what the norm is called with, as in
batch renormalization (Ioffe, arXiv:1702.03275, section 3). With the running statistics for
constants it would point along the scale of the weights before the norm, which changes nothing once
these statistics have followed; that scale grew with each step on spikes. A call that has one step
knows no other statistics than that step's. By others, as those of time means, a step's gradient
would be off by the ratio of the variances, and grow without bound where inputs change over time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import SpikestrapError
from ..precision import whole
from .layout import BATCH_FIRST, FOLDED, STEP

Call = Callable[..., Any]


def norms_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms in training, by their names."""
    modules = model.named_modules()
    return {name: m for name, m in modules if isinstance(m, _BatchNorm) and m.training}


def has_norms(model: nn.Module) -> bool:
    """Whether there are batch norms, in training or not."""
    return any(isinstance(m, _BatchNorm) for m in model.modules())


class TimeMeans:
    """Means over time of what one batch norm sees in a spiking pass, in each of its places.

    steps, batch: T and N of the pass. layout: how the model takes time, or its neurons have it
    folded into an input. The model says with `begin_call` that it is called: in layout "step" the
    norm's calls are then one for each place; otherwise those with all steps are.
    """

    def __init__(self, name: str, norm: _BatchNorm, steps: int, batch: int, layout: str) -> None:
        self.name, self.norm = name, norm
        self.steps, self.batch, self.layout = steps, batch, layout
        self.original = norm.forward
        # Copies, as the gradient needs those that the pass has gone by, and `update` moves them.
        self.statistics = {
            name: buffer.clone()
            for name in ("running_mean", "running_var")
            if (buffer := norm._buffers[name]) is not None
        }
        self.place = 0
        self.sums: dict[int, Tensor] = {}
        self.calls: dict[int, int] = {}

    def begin_call(self) -> None:
        """The model is called: the first place comes next."""
        self.place = 0

    def __call__(self, x: Tensor) -> Any:
        """In place of the norm's forward: by the running statistics."""
        self._add(x.detach())
        buffers = dict(self.norm._buffers)
        self.norm._buffers.update(self.statistics)
        self.norm.training = False
        try:
            return self.original(through_statistics(x, self._channels, self.norm.eps))
        finally:
            self.norm._buffers.update(buffers)
            self.norm.training = True

    @property
    def _channels(self) -> int:
        """The axis of channels."""
        return 2 if getattr(self.norm, "step_mode", "s") == "m" else 1

    @torch.no_grad()
    def _add(self, x: Tensor) -> None:
        mean = self._mean(x)
        if self.layout == STEP or mean is not x or self.steps == 1:
            place = self.place
            self.place += 1
        else:
            place = -1  # single steps of a call with all of them: they can be those of one place
        total = self.sums.get(place)
        if total is None:
            self.sums[place], self.calls[place] = mean.clone(), 1
        elif total.shape == mean.shape and self.calls[place] < self.steps:
            self.sums[place] = total + mean
            self.calls[place] += 1
        else:
            raise self._unclear()

    def _mean(self, x: Tensor) -> Tensor:
        """Over the steps in a call; x itself where it has no time."""
        if self._channels == 2:
            return x.mean(0, keepdim=True)
        if self.steps > 1 and self.layout != STEP and x.shape[0] == self.steps * self.batch:
            if self.layout in (BATCH_FIRST, FOLDED):
                return x.unflatten(0, (self.batch, self.steps)).mean(1)
            return x.unflatten(0, (self.steps, self.batch)).mean(0)
        return x

    def check(self) -> None:
        """After the pass: raises SpikestrapError where places cannot have been told apart."""
        if len({calls for place, calls in self.calls.items() if place >= 0}) > 1:
            raise self._unclear()

    def _unclear(self) -> SpikestrapError:
        return SpikestrapError(
            f"bootstrap: batch norm {self.name!r} is called in more than one place, and its calls "
            "cannot be told apart: expected the same number of them in each time step, by a "
            "forward that takes one step a call (layout 'step'), or all steps in each of its "
            "calls. Give each place a norm of its own"
        )

    @torch.no_grad()
    def update(self) -> None:
        """After the pass: moves the running statistics, by the norm's own code, once a place."""
        momentum, first = self.norm.momentum, self.norm.num_batches_tracked == 0
        try:
            for count, (place, total) in enumerate(self.sums.items(), 1):
                # Nothing to stay close to: the first batch sets them, before its own pass as well,
                # to the mean over its places.
                self.norm.momentum = 1 / count if first else momentum
                self.original(total / self.calls[place])
        finally:
            self.norm.momentum = momentum


def through_statistics(x: Tensor, channels: int, eps: float) -> Tensor:
    """x as it is. Its gradient loses what a batch norm's does: its mean, and its part along x.

    channels: their axis.

    >>> x = torch.rand(8, 3, requires_grad=True)
    >>> y = through_statistics(x, 1, 1e-5)
    >>> (y * torch.rand(8, 3)).sum().backward()
    >>> torch.allclose(x.grad.sum(0), torch.zeros(3), atol=1e-5)
    True
    """
    if has_torch_function((x,)):
        watched: Tensor = handle_torch_function(through_statistics, (x,), x, channels, eps)
        return watched
    value: Tensor = _ThroughStatistics.apply(x, channels, eps)
    return value


class _ThroughStatistics(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, channels: int, eps: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.channels, ctx.eps = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, grad = (whole(t) for t in (*ctx.saved_tensors, *grads))
        others = [axis for axis in range(x.ndim) if axis != ctx.channels]
        var, mean = torch.var_mean(x, others, correction=0, keepdim=True)
        normed = (x - mean) * torch.rsqrt(var + ctx.eps)
        along = (grad * normed).mean(others, keepdim=True)
        grad = grad - grad.mean(others, keepdim=True) - normed * along
        return grad.to(grads[0].dtype), None, None
