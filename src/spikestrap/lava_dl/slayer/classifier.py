"""lava.lib.dl.slayer.classifier: classes from spikes, time last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...counts import whole_number
from ...errors import SpikestrapError
from ..timelast import floating
from .utils.filter import FIR

_EPS = 1e-6


def _confidence(rate: Tensor, mode: str, eps: float) -> Tensor:
    """Of rates (N, C, ...), over the classes C."""
    if mode == "probability":
        return rate / (rate.sum(1, keepdim=True) + eps)
    if mode == "softmax":
        return F.softmax(rate, 1)
    if mode == "logsoftmax":
        return F.log_softmax(rate, 1)
    raise SpikestrapError(f"mode must be probability, softmax or logsoftmax, got {mode!r}")


def by_class(spike: Tensor, where: str) -> Tensor:
    """Spikes (N, ..., T) as (N, C, T)."""
    if floating(spike, where).ndim < 3:
        raise SpikestrapError(
            f"{where}: expected spikes (N, C, T), time last; got shape {tuple(spike.shape)}"
        )
    return spike.reshape(len(spike), -1, spike.shape[-1])


class Rate(nn.Module):
    """The class that fires most: spikes (N, C, T) or (N, ..., T) to classes (N,).

    >>> Rate()(torch.tensor([[[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])).tolist()
    [1]
    """

    def forward(self, spike: Tensor) -> Tensor:
        """The same as `predict`."""
        return Rate.predict(spike)

    @staticmethod
    def rate(spike: Tensor) -> Tensor:
        """Mean over time, (N, ...)."""
        return spike.mean(-1)

    @staticmethod
    def confidence(spike: Tensor, mode: str = "probability", eps: float = _EPS) -> Tensor:
        """(N, C): rates over their sum, or their softmax or logsoftmax."""
        return _confidence(Rate.rate(by_class(spike, "Rate")), mode, eps)

    @staticmethod
    def predict(spike: Tensor) -> Tensor:
        """Classes (N,)."""
        return Rate.rate(by_class(spike, "Rate")).argmax(1)


class MovingWindow(nn.Module):
    """The class that fires most in the last time_window steps, at each step.

    Spikes (N, C, T) to classes (N, T). mode: that of `confidence`.

    >>> MovingWindow(1)(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])).tolist()
    [[1, 0]]
    """

    def __init__(self, time_window: int, mode: str = "probability", eps: float = _EPS) -> None:
        super().__init__()
        time_window = whole_number("MovingWindow: time_window", time_window, 1)
        self.filter = FIR(torch.ones(time_window) / time_window)
        self.mode, self.eps = mode, eps

    def rate(self, spike: Tensor) -> Tensor:
        """Mean over the window that ends at each step, the same shape."""
        filtered: Tensor = self.filter(spike)
        return filtered

    def confidence(self, spike: Tensor, mode: str | None = None) -> Tensor:
        """(N, C, T): rates over their sum over the classes, or their softmax or logsoftmax."""
        rate = self.rate(by_class(spike, "MovingWindow"))
        return _confidence(rate, self.mode if mode is None else mode, self.eps)

    def predict(self, spike: Tensor) -> Tensor:
        """Classes (N, T)."""
        return self.rate(spike).argmax(1)

    def forward(self, spike: Tensor) -> Tensor:
        """The same as `predict`."""
        return self.predict(spike)
