"""Between lava-dl's layout, time last, and spikestrap's, time first: views, no copies."""

from __future__ import annotations

from torch import Tensor

from ..errors import SpikestrapError
from ..timeaxis import has_time


def time_first(x: Tensor, where: str) -> Tensor:
    """(N, C, T) or (N, C, H, W, T) as (T, N, C) or (T, N, C, H, W).

    >>> import torch
    >>> time_first(torch.rand(8, 3, 16), "x").shape
    torch.Size([16, 8, 3])
    """
    if x.ndim not in (3, 5):
        raise SpikestrapError(
            f"{where}: expected (N, C, T) or (N, C, H, W, T), time last; got shape {tuple(x.shape)}"
        )
    return x.movedim(-1, 0)


def time_last(x: Tensor) -> Tensor:
    """The way back; rates (N, C) or (N, C, H, W) get a last axis of one step."""
    return x.movedim(0, -1) if has_time(x) else x.unsqueeze(-1)
