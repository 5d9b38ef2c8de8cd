"""Where time is in a tensor, library by library, and how to bring it to the front.

Inside spikestrap time comes first, (T, N, ...). Other libraries call a neuron, or a model,
with one step at a time, with time second, or with time folded into the batch.
"""

from __future__ import annotations

from torch import Tensor

STEP = "step"  # (N, ...): one time step a call
TIME_FIRST = "time_first"  # (T, N, ...)
BATCH_FIRST = "batch_first"  # (N, T, ...)
FOLDED = "folded"  # (N * T, ...), time running fastest
OWN = "own"  # a model that runs over time by itself
NEURON_LAYOUTS = (STEP, TIME_FIRST, BATCH_FIRST, FOLDED)
LAYOUTS = (*NEURON_LAYOUTS, OWN)


def to_time_first(x: Tensor, layout: str, steps: int) -> Tensor:
    """x in a layout to (t, N, ...); `steps` is needed where time is folded.

    >>> import torch
    >>> [tuple(to_time_first(torch.rand(6, 4, 5), k, 3).shape) for k in NEURON_LAYOUTS]
    [(1, 6, 4, 5), (6, 4, 5), (4, 6, 5), (3, 2, 4, 5)]
    """
    if layout == STEP:
        return x.unsqueeze(0)
    if layout == TIME_FIRST:
        return x
    return (x if layout == BATCH_FIRST else x.unflatten(0, (-1, steps))).transpose(0, 1)


def from_time_first(x: Tensor, layout: str) -> Tensor:
    """The way back: (t, N, ...) to the layout; for "step", t is 1.

    >>> import torch
    >>> x = torch.rand(3, 2, 5)
    >>> torch.equal(to_time_first(from_time_first(x, FOLDED), FOLDED, 3), x)
    True
    """
    if layout == STEP:
        return x[0]
    if layout == TIME_FIRST:
        return x
    x = x.transpose(0, 1)
    return x if layout == BATCH_FIRST else x.flatten(0, 1)
