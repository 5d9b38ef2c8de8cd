"""Norms that commute with averaging over time.

Statistics are those of time means, in SNN and ANN mode alike, so that one set of running
statistics serves both and the norm of the mean is the mean of the norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .errors import SpikestrapError
from .timeaxis import has_time, time_mean


class Norm(nn.Module, ABC):
    """Per channel, z to scale * z + shift; z is (T, N, C, ...) or (N, C, ...)."""

    @abstractmethod
    def scale_shift(self, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,): by the statistics of z (N, C, ...), or the running ones."""

    def forward(self, z: Tensor) -> Tensor:
        """Normalizes; in training by the batch's statistics, which move the running ones.

        z: (T, N, C, ...) or (N, C, ...), the same shape out, float32 inside.
        """
        timed = has_time(z)
        seen = (time_mean(z) if timed else z).float() if self.training else None
        if seen is not None and seen.numel() == seen.shape[1]:
            raise SpikestrapError(
                f"{type(self).__name__}: training needs more than one value a channel, got "
                f"shape {tuple(z.shape)}: take a larger batch, or call eval()"
            )
        scale, shift = self.scale_shift(seen)
        shape = (-1, *[1] * (z.ndim - (3 if timed else 2)))
        return torch.addcmul(shift.view(shape), z, scale.view(shape)).to(z.dtype)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) of evaluation, to fold into the synapse before it.

        >>> norm = BatchNorm(3).eval()
        >>> z = torch.rand(4, 3)
        >>> scale, shift = norm.folded()
        >>> torch.allclose(norm(z), scale * z + shift)
        True
        """
        with torch.no_grad():
            return self.scale_shift(None)


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
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_shift(self, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Norm.scale_shift`."""
        mean, var = self.running_mean, self.running_var
        if z is not None:
            axes = [0, *range(2, z.ndim)]
            var, mean = torch.var_mean(z, axes, correction=0)
            with torch.no_grad():
                count = z.numel() // z.shape[1]
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale


class MeanOnlyNorm(Norm):
    """Takes the mean away and adds a bias (C,); leaves the scale (Salimans and Kingma, 2016).

    For weight-normalized synapses; its fold is a bias alone, so weights stay as they are.

    >>> norm = MeanOnlyNorm(3)
    >>> z = torch.rand(8, 3)
    >>> torch.allclose(norm(z), z - z.mean(0), atol=1e-6)
    True
    """

    running_mean: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def scale_shift(self, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Norm.scale_shift`."""
        mean = self.running_mean
        if z is not None:
            mean = z.mean([0, *range(2, z.ndim)])
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
        return torch.ones_like(mean), self.bias - mean


NORMS = {"batch": BatchNorm, "mean_only": MeanOnlyNorm}


def make_norm(name: str | None, channels: int) -> Norm | None:
    """The norm of that name for so many channels; None for None."""
    if name is None:
        return None
    if name not in NORMS:
        raise SpikestrapError(f"norm must be None or one of {', '.join(NORMS)}; got {name!r}")
    return NORMS[name](channels)
