"""Dropout, time last."""

from __future__ import annotations

from torch import Tensor, nn

from .... import block
from ...timelast import time_first, time_last


class Dropout(nn.Module):
    """Drops neurons of (N, ..., T) for all time steps, each with probability p, in training.

    >>> import torch
    >>> y = Dropout(0.5)(torch.ones(8, 5, 4))
    >>> torch.equal(y[..., 0], y[..., 3])
    True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.dropout = block.Dropout(p)

    @property
    def p(self) -> float:
        """The probability."""
        return self.dropout.p

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return time_last(self.dropout(time_first(input, "Dropout")))
