"""lava.lib.dl.slayer.axon: delays of spikes."""

from __future__ import annotations

from torch import Tensor

from ..missing import missing
from .utils.time import shift

__all__ = ["delay"]

__getattr__ = missing(
    __name__,
    {
        "Delay": 'spikestrap.block.Delay(..., rounding="down") has learnable delays, time first',
        "delta": "spikestrap.neuron.Delta sends changes, time first",
        "Delta": "spikestrap.neuron.Delta sends changes, time first",
    },
)


def delay(input: Tensor, delay_val: int = 1, sampling_time: int = 1) -> Tensor:
    """Spikes (N, ..., T), delay_val / sampling_time steps later; what passes the end is lost.

    >>> import torch
    >>> delay(torch.tensor([[1.0, 0.0, 1.0]])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    return shift(input, delay_val, sampling_time)
