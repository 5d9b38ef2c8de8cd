"""Dropout, time last."""

from __future__ import annotations

from torch import Tensor, nn

from .... import block
from ...timelast import time_first, time_last, vectors


class Dropout(nn.Module):
    """Drops neurons of (N, C, ..., T) for all time steps, each with probability p, in training.

    inplace: into the input itself.

    >>> import torch
    >>> y = Dropout(0.5)(torch.ones(8, 5, 4))
    >>> torch.equal(y[..., 0], y[..., 3])
    True
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.dropout = block.Dropout(p)
        self.inplace = inplace

    @property
    def p(self) -> float:
        """The probability."""
        return self.dropout.p

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        if not self.training:
            return input
        dropped = self.dropout(time_first(vectors(input), "Dropout"))
        y = time_last(dropped).view(input.shape)
        return input.copy_(y) if self.inplace else y
