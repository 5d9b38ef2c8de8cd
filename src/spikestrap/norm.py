"""Norms that commute with averaging over time.

Statistics are those of time means, in SNN and ANN mode alike, so that one set of running
statistics serves both and the norm of the mean is the mean of the norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import processes
from .errors import SpikestrapError
from .precision import full, unhalved
from .timeaxis import has_time, time_mean


class Norm(nn.Module, ABC):
    """Per channel, z to scale * z + shift; z is (T, N, C, ...) or (N, C, ...), shape kept.

    synchronized: whether a batch is what all processes have of it; see `synchronize`.
    Statistics and parameters stay float32 where the module is cast to half precision.
    """

    synchronized = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(unhalved(fn), recurse)

    @abstractmethod
    def by_batch(self, mean: Tensor, z: Tensor) -> Tensor:
        """Normalizes z (T, N, C, ...) by statistics of its time mean (N, C, ...).

        Also moves the running statistics.
        """

    @abstractmethod
    def of_batch(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) by the statistics of time means (N, C, ...), as in training.

        Also moves the running statistics.
        """

    @abstractmethod
    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) of evaluation, by the running statistics.

        To fold into the synapse before it:

        >>> norm = BatchNorm(3).eval()
        >>> z = torch.rand(4, 3)
        >>> scale, shift = norm.folded()
        >>> torch.allclose(norm(z), scale * z + shift)
        True
        """

    def forward(self, z: Tensor) -> Tensor:
        """Normalizes; in training by the batch's statistics. float32 inside, z's dtype out."""
        timed = z if has_time(z) else z.unsqueeze(0)
        if not self.training:
            y = affine(timed, *self.folded())
        else:
            y = self.by_batch(self.batch_mean(z), timed)
        return y.view_as(z).to(z.dtype)

    def batch_mean(self, z: Tensor) -> Tensor:
        """z (N, C, ...), or its time mean, of which the statistics are: in float32 or wider.

        Raises SpikestrapError where a channel has but one value.
        """
        mean = time_mean(z) if has_time(z) else z
        mean = mean if mean.dtype is torch.float64 else mean.float()
        if mean.numel() == mean.shape[1] and not self._shared:
            raise SpikestrapError(
                f"{type(self).__name__}: training needs more than one value a channel, got "
                f"shape {tuple(z.shape)}: take a larger batch, or call eval()"
            )
        return mean

    @property
    def _shared(self) -> bool:
        return self.synchronized and processes.count() > 1

    def _mean(self, values: Tensor) -> tuple[Tensor, Tensor | int]:
        """Mean (C,) of values (N, C, ...), and of how many, over the processes that count."""
        if not self._shared:
            return values.mean([0, *range(2, values.ndim)]), values.numel() // values.shape[1]
        total = values.sum([0, *range(2, values.ndim)])
        count = total.new_tensor([values.numel() // values.shape[1]])
        sums = processes.sum_of_all(torch.cat([total, count]))
        return sums[:-1] / sums[-1], sums[-1].detach()


def synchronize(module: nn.Module, on: bool = True) -> None:
    """Has the norms in a module take a batch's statistics over all processes, or not.

    As torch's SyncBatchNorm does for its own: each then normalizes, and moves its running
    statistics, as one process with the whole batch would. Costs a sum over the processes at each
    call in training; worth it where a process's own share is small.

    >>> import spikestrap as ss
    >>> net = ss.Network(ss.block.cuba.Dense(dict(threshold=1.0, norm="batch"), 8, 4), time_steps=2)
    >>> synchronize(net)
    >>> net.blocks[0].norm.synchronized
    True
    """
    for norm in module.modules():
        if isinstance(norm, Norm):
            norm.synchronized = on


def affine(z: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * z + shift for z (T, N, C, ...) and a scale and shift (C,)."""
    shape = (-1, *[1] * (z.ndim - 3))
    return torch.addcmul(shift.view(shape), z, scale.view(shape))


def fold(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight (C, ...) and bias (C,) of the synapse that does what scaling its output would.

    >>> weight, bias = fold(torch.ones(2, 3), None, torch.tensor([2.0, 3.0]), torch.zeros(2))
    >>> weight[:, 0].tolist(), bias.tolist()
    ([2.0, 3.0], [0.0, 0.0])
    """
    weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return weight, shift if bias is None else bias * scale + shift


class BatchNorm(Norm):
    """Batch norm over time means (Ioffe and Szegedy, ICML 2015), with weight and bias (C,).

    momentum: what a batch adds to the running statistics; the variance is kept unbiased, as
    in torch.nn.BatchNorm2d.

    >>> norm = BatchNorm(3)
    >>> z = torch.rand(4, 8, 3)                     # (T, N, C)
    >>> torch.allclose(norm(z).mean((0, 1)), torch.zeros(3), atol=1e-5)
    True
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels, dtype=full()))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=full()))
        self.register_buffer("running_mean", torch.zeros(channels, dtype=full()))
        self.register_buffer("running_var", torch.ones(channels, dtype=full()))

    def by_batch(self, mean: Tensor, z: Tensor) -> Tensor:
        """See `Norm.by_batch`."""
        running = (self.running_mean, self.running_var)
        if z.shape[0] == 1 and not self._shared:
            # Without time it is torch's own, which is fused.
            y = F.batch_norm(mean, *running, self.weight, self.bias, True, self.momentum, self.eps)
            return y.unsqueeze(0)
        return affine(z, *self.of_batch(mean))

    def of_batch(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """See `Norm.of_batch`."""
        if self._shared:
            centre, count = self._mean(mean)
            var, _ = self._mean((mean - centre.view(-1, *[1] * (mean.ndim - 2))) ** 2)
        else:
            var, centre = torch.var_mean(mean, [0, *range(2, mean.ndim)], correction=0)
            count = mean.numel() // mean.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(centre.to(self.running_mean), self.momentum)
            unbiased = (var * count / (count - 1)).to(self.running_var)
            self.running_var.lerp_(unbiased, self.momentum)
        return self._scale_shift(centre, var)

    def folded(self) -> tuple[Tensor, Tensor]:
        """See `Norm.folded`."""
        return self._scale_shift(self.running_mean, self.running_var)

    def _scale_shift(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale


class MeanOnlyNorm(Norm):
    """Takes the mean away and adds a bias (C,); leaves the scale (Salimans and Kingma, 2016).

    For weight-normalized synapses; its fold is a bias alone, so weights stay as they are.
    grid: what that bias is rounded to; None leaves it as it is.

    >>> norm = MeanOnlyNorm(3)
    >>> z = torch.rand(8, 3)
    >>> torch.allclose(norm(z), z - z.mean(0), atol=1e-6)
    True
    """

    running_mean: Tensor

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.1,
        grid: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.momentum, self.grid = momentum, grid
        self.bias = nn.Parameter(torch.zeros(channels, dtype=full()))
        self.register_buffer("running_mean", torch.zeros(channels, dtype=full()))

    def by_batch(self, mean: Tensor, z: Tensor) -> Tensor:
        """See `Norm.by_batch`."""
        return affine(z, *self.of_batch(mean))

    def of_batch(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """See `Norm.of_batch`."""
        centre, _ = self._mean(mean)
        with torch.no_grad():
            self.running_mean.lerp_(centre.to(self.running_mean), self.momentum)
        return self._scale_shift(centre)

    def folded(self) -> tuple[Tensor, Tensor]:
        """See `Norm.folded`."""
        return self._scale_shift(self.running_mean)

    def _scale_shift(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        shift = self.bias - mean
        return torch.ones_like(mean), shift if self.grid is None else self.grid(shift)


NORMS = {"batch": BatchNorm, "mean_only": MeanOnlyNorm}


def make_norm(name: str | None, channels: int) -> Norm | None:
    """The norm of that name for so many channels; None for None."""
    if name is None:
        return None
    if name not in NORMS:
        raise SpikestrapError(f"norm must be None or one of {', '.join(NORMS)}; got {name!r}")
    return NORMS[name](channels)
