"""Blocks without a neuron: linear in their input, so they commute with averaging over time.

They take spikes (T, N, ...) and rates (N, ...) alike, and a mode only to be called as the
other blocks are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..counts import whole_number
from ..errors import SpikestrapError, at
from ..precision import whole
from ..routine import Mode
from ..synapse import Pooling, Size, check_images
from ..timeaxis import compact, has_time, hold, is_held, over_time, time_mean


def _keeping_held(function: Any, x: Tensor) -> Tensor:
    """Applies it to one step only of an input that is held."""
    y: Tensor
    if has_time(x) and x.shape[0] > 1 and is_held(x):
        y = hold(function(compact(x))[0], x.shape[0])
    else:
        y = function(x)
    return y


class Flatten(nn.Module):
    """Images to vectors: (T, N, C, H, W) to (T, N, C H W), (N, C, H, W) to (N, C H W).

    >>> Flatten()(torch.rand(4, 8, 2, 3, 3)).shape
    torch.Size([4, 8, 18])
    """

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """Vectors stay as they are."""
        return _keeping_held(lambda r: r.flatten(-3) if r.ndim > 3 else r, x)


class AvgPool(nn.Module):
    """Average pooling of (T, N, C, H, W) or (N, C, H, W), times the fixed `weight`.

    Of spikes it gives fractions, which a chip takes as a strided convolution. A weight above 1
    before a readout has it learn faster: it reads rates, which are at most 1 and mostly far less.

    >>> AvgPool(2)(torch.rand(4, 8, 2, 6, 6)).shape
    torch.Size([4, 8, 2, 3, 3])
    >>> AvgPool(2, weight=3.0)(torch.ones(1, 1, 2, 2)).item()
    3.0
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        with at("AvgPool"):
            self.pooling = Pooling(kernel_size, stride, padding, "average", weight)
        self.sums = False

    def quantize(self) -> float:
        """From here on gives sums; the factor that the synapse behind it is to make up for.

        Raises SpikestrapError for windows that overlap.
        """
        window, stride, _ = self.pooling.sizes
        if any(w > s for w, s in zip(window, stride, strict=True)):
            raise SpikestrapError(
                "AvgPool: on the chip it becomes part of the weights behind it, whose sums where "
                "windows overlap may leave their range; expected a stride of at least the "
                f"window {window}, got {stride}"
            )
        self.sums = True
        return self.pooling.factor

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """Pools each window of each step."""
        if not self.sums:
            return _keeping_held(self.pooling, x)
        # Halves do not hold the whole numbers that a wide window may sum up to.
        return _keeping_held(lambda r: self.pooling.sums(whole(r)), x)


class Upsample(nn.Module):
    """Repeats each pixel: (T, N, C, H, W) to (T, N, C, s H, s W), or without T.

    >>> Upsample(2)(torch.rand(4, 8, 2, 3, 3)).shape
    torch.Size([4, 8, 2, 6, 6])
    """

    def __init__(self, scale_factor: int) -> None:
        super().__init__()
        self.scale_factor = float(whole_number("Upsample: scale_factor", scale_factor, 1))

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """Nearest neighbour, so spikes stay spikes."""
        check_images(x)

        def enlarge(r: Tensor) -> Tensor:
            return F.interpolate(r, scale_factor=self.scale_factor, mode="nearest")

        return _keeping_held(lambda r: over_time(enlarge, r) if has_time(r) else enlarge(r), x)


class Add(nn.Module):
    """Sum of two branches; where only one still has time, the other's is averaged away.

    >>> spikes, rates = torch.ones(4, 8, 5), torch.ones(8, 5)
    >>> Add()(spikes, spikes).shape, Add()(spikes, rates).shape
    (torch.Size([4, 8, 5]), torch.Size([8, 5]))
    """

    def forward(self, x: Tensor, y: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """x, y: (T, N, ...) or (N, ...), the same features."""
        if has_time(x) != has_time(y):
            x, y = (time_mean(r) if has_time(r) else r for r in (x, y))
        if x.shape != y.shape:
            raise SpikestrapError(
                f"Add: expected two of one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        return x + y


class Dropout(nn.Module):
    """Dropout with one mask for all time steps; p: probability to drop a feature.

    >>> y = Dropout(0.5)(torch.ones(4, 8, 5))
    >>> torch.equal(y[0], y[3])
    True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not isinstance(p, int | float) or not 0 <= p < 1:
            raise SpikestrapError(f"dropout must be a probability in [0, 1), got {p!r}")
        self.p = float(p)

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """Drops in training only."""
        if not self.training or self.p == 0:
            return x
        one_step = x[0] if has_time(x) else x
        return x * F.dropout(torch.ones_like(one_step), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
