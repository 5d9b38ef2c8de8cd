"""Between lava-dl's layout, time last, and spikestrap's, time first: views, no copies."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SpikestrapError
from ..timeaxis import has_time

# Of one input, (C,) or (C, H, W); None for a size that may be any.
Features = tuple[int | None, ...]


def tensor(x: object, where: str) -> Tensor:
    """x itself, or SpikestrapError for what is no tensor."""
    if isinstance(x, Tensor):
        return x
    raise SpikestrapError(
        f"{where}: expected a tensor, got {type(x).__name__}; torch.as_tensor makes one"
    )


def floating(x: object, where: str) -> Tensor:
    """x itself, or SpikestrapError for what is no tensor in floating point."""
    x = tensor(x, where)
    if not x.is_floating_point():
        raise SpikestrapError(
            f"{where}: expected floating-point spikes or rates, got {x.dtype}; use x.float()"
        )
    return x


def accepted(x: Tensor, features: Features, where: str, dtype: torch.dtype | None = None) -> Tensor:
    """x itself, or vectors (N, C, 1, 1, T) as (N, C, T).

    Raises SpikestrapError unless it has those features, in floating point, and in double
    precision where the weights are, of that dtype.

    >>> import torch
    >>> accepted(torch.rand(8, 3, 1, 1, 16), (3,), "x").shape
    torch.Size([8, 3, 16])
    """
    x = floating(x, where)
    if dtype is not None and (x.dtype is torch.float64) != (dtype is torch.float64):
        raise SpikestrapError(
            f"{where}: expected {dtype}, as its weights are, got {x.dtype}; use x.to({dtype})"
        )
    if len(features) == 1 and x.ndim == 5 and x.shape[2:4] == (1, 1):
        x = x[:, :, 0, 0]
    if x.ndim != len(features) + 2 or features[0] not in (None, x.shape[1]):
        channels = "C" if features[0] is None else features[0]
        sizes = f"{channels}, H, W" if len(features) == 3 else channels
        raise SpikestrapError(
            f"{where}: expected (N, {sizes}, T), time last; got shape {tuple(x.shape)}"
        )
    return x


def vectors(x: Tensor) -> Tensor:
    """(N, C, ..., T), of any features, as (N, neurons, T).

    >>> import torch
    >>> vectors(torch.rand(8, 3, 5, 16)).shape
    torch.Size([8, 15, 16])
    """
    return x.flatten(1, -2) if x.ndim > 3 else x


def time_first(x: Tensor, where: str) -> Tensor:
    """(N, C, T) or (N, C, H, W, T) as (T, N, C) or (T, N, C, H, W).

    >>> import torch
    >>> time_first(torch.rand(8, 3, 16), "x").shape
    torch.Size([16, 8, 3])
    """
    if tensor(x, where).ndim not in (3, 5):
        raise SpikestrapError(
            f"{where}: expected (N, C, T) or (N, C, H, W, T), time last; got shape {tuple(x.shape)}"
        )
    return x.movedim(-1, 0)


def time_last(x: Tensor) -> Tensor:
    """The way back; rates (N, C) or (N, C, H, W) get a last axis of one step."""
    return x.movedim(0, -1) if has_time(x) else x.unsqueeze(-1)
