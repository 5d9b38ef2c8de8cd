"""The time axis: spikes are (T, N, features...), rates are (N, features...).

Features are flat (C,) or images (C, H, W). So a tensor with an odd number of axes has time
in front, and one with an even number is a rate: 3 or 5 axes against 2 or 4.
An input that is held for T steps is a view (T, N, ...) with stride 0 over time, so that
what does not depend on time can be computed once.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .errors import SpikestrapError


def hold(x: Tensor, time_steps: int) -> Tensor:
    """A static input (N, ...) held for T steps: a view (T, N, ...), no copy.

    >>> import torch
    >>> hold(torch.rand(2, 5), 4).shape, is_held(hold(torch.rand(2, 5), 4))
    (torch.Size([4, 2, 5]), True)
    """
    if not isinstance(time_steps, int) or time_steps < 1:
        raise SpikestrapError(f"time_steps must be a whole number >= 1, got {time_steps!r}")
    return x.unsqueeze(0).expand(time_steps, *x.shape)


def has_time(x: Tensor) -> bool:
    """Whether x is (T, N, features...) rather than (N, features...)."""
    return x.ndim in (3, 5)


def is_held(x: Tensor) -> bool:
    """Whether x (T, N, ...) is the same at every step, as `hold` makes it."""
    return x.shape[0] == 1 or x.stride(0) == 0


def compact(x: Tensor) -> Tensor:
    """A held x (T, N, ...) as (1, N, ...); any other as it is."""
    return x[:1] if x.shape[0] > 1 and is_held(x) else x


def time_mean(x: Tensor) -> Tensor:
    """Mean over time of x (T, N, ...): (N, ...)."""
    return x[0] if is_held(x) else x.mean(0)


def over_time(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function of (N, ...) to every step of (T, N, ...), time folded into N.

    >>> import torch
    >>> over_time(lambda r: r.flatten(1), torch.rand(4, 2, 3, 5, 5)).shape
    torch.Size([4, 2, 75])
    """
    y = function(x.flatten(0, 1))
    return y.unflatten(0, (x.shape[0], x.shape[1]))
