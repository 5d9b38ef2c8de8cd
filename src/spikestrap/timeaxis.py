"""The time axis: spikes are (T, N, features...), rates are (N, features...).

Features are flat (C,) or images (C, H, W). So a tensor with an odd number of axes has time
in front, and one with an even number is a rate: 3 or 5 axes against 2 or 4.
An input that is held for T steps is a view (T, N, ...) with stride 0 over time, so that
what does not depend on time can be computed once.
Sequences of different lengths lie in one tensor, each padded at its end; what averages over
time does so here, and within `ragged` counts their valid steps alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .counts import whole_number
from .errors import SpikestrapError


class _Current(threading.local):
    """What `ragged` says, in this thread."""

    lengths: Tensor | None = None


_current = _Current()


def hold(x: Tensor, time_steps: int) -> Tensor:
    """A static input (N, ...) held for T steps: a view (T, N, ...), no copy.

    >>> import torch
    >>> hold(torch.rand(2, 5), 4).shape, is_held(hold(torch.rand(2, 5), 4))
    (torch.Size([4, 2, 5]), True)
    """
    if not isinstance(x, Tensor):
        raise SpikestrapError(f"hold: expected a tensor, got {type(x).__name__}")
    time_steps = whole_number("time_steps", time_steps, 1)
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


@contextmanager
def ragged(lengths: Tensor) -> Iterator[None]:
    """Within it, so many steps of each sample are valid: lengths (N,), whole numbers >= 1.

    The steps behind them are padding, which no mean over time counts: no rate, no statistics of
    a norm, no logits. Nothing runs backwards in time, so valid steps are what they are without
    padding. `spikestrap.Network` takes ``lengths=`` itself; this is for a forward of your own,
    for all of it: also for what `torch.utils.checkpoint` computes again in the backward pass.
    Raises SpikestrapError for anything else, also within, where samples are not N.

    >>> x = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(4, 1, 1)
    >>> time_mean(x).item()
    0.5
    >>> with ragged(torch.tensor([2])):
    ...     time_mean(x).item()
    1.0
    """
    before = _current.lengths
    _current.lengths = _checked(lengths)
    try:
        yield
    finally:
        _current.lengths = before


def _checked(lengths: Tensor) -> Tensor:
    if not isinstance(lengths, Tensor):
        raise SpikestrapError(f"lengths: expected a tensor (N,), got {type(lengths).__name__}")
    if lengths.dtype not in _WHOLE or lengths.ndim != 1 or lengths.numel() == 0:
        raise SpikestrapError(
            f"lengths: expected whole numbers (N,), got {lengths.dtype} {tuple(lengths.shape)}"
        )
    # On an accelerator the check would wait for it.
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling() and lengths.min() < 1:
        raise SpikestrapError(f"lengths: expected at least 1 step each, got {int(lengths.min())}")
    return lengths


_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def longest() -> int | None:
    """The largest of the lengths within `ragged`, None without."""
    return None if _current.lengths is None else int(_current.lengths.max())


def refuse_lengths(who: str) -> None:
    """Raises within `ragged`: for what could not keep to it.

    >>> with ragged(torch.tensor([2])):
    ...     refuse_lengths("My model")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: My model takes no lengths: expected a call outside \
spikestrap.ragged, with sequences of one length
    """
    if longest() is not None:
        raise SpikestrapError(
            f"{who} takes no lengths: expected a call outside spikestrap.ragged, with "
            "sequences of one length"
        )


def pad(samples: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Samples (T_n, features...) in one tensor (T, N, features...), and their lengths (N,).

    T is that of the longest; zeros fill the others up. Raises SpikestrapError where there is none,
    one has no step, or features differ.

    >>> x, lengths = pad([torch.ones(2, 5), torch.ones(4, 5)])
    >>> x.shape, lengths.tolist(), x[:, 0, 0].tolist()
    (torch.Size([4, 2, 5]), [2, 4], [1.0, 1.0, 0.0, 0.0])
    """
    shapes = [tuple(sample.shape) for sample in samples]
    if not shapes or any(len(s) < 2 or s[0] < 1 or s[1:] != shapes[0][1:] for s in shapes):
        raise SpikestrapError(
            "pad: expected samples (T, features...) with T >= 1 and the same features, "
            f"got shapes {shapes}"
        )
    return pad_sequence(list(samples)), torch.tensor([shape[0] for shape in shapes])


def _is_valid(x: Tensor, lengths: Tensor) -> Tensor:
    """Which steps of x (T, N, ...) are no padding: bool (T, N); of a longer sample all are."""
    if lengths.shape[0] != x.shape[1]:
        raise SpikestrapError(
            f"lengths: expected one for each of the {x.shape[1]} samples of {tuple(x.shape)}, "
            f"got {lengths.shape[0]}"
        )
    return torch.arange(x.shape[0], device=x.device)[:, None] < lengths.to(x.device)


def valid(x: Tensor) -> Tensor:
    """The steps of x (T, N, ...) that are no padding, in a row: (steps, ...).

    All of x as it is without `ragged`, and rates (N, ...).
    """
    lengths = _current.lengths
    return x if lengths is None or not has_time(x) else x[_is_valid(x, lengths)]


def time_mean(x: Tensor) -> Tensor:
    """Mean over time of x (T, N, ...), within `ragged` over the valid steps: (N, ...)."""
    lengths = _current.lengths
    if is_held(x):
        return x[0]
    if lengths is None:
        return x.mean(0)
    column = (-1, *[1] * (x.ndim - 2))
    mask = _is_valid(x, lengths)
    # Not times the mask: padding may be anything, NaN as well. In half precision sums are wider.
    wide = torch.promote_types(x.dtype, torch.float32)
    total = x.masked_fill(~mask.view(x.shape[0], *column), 0).sum(0, dtype=wide)
    return (total / mask.sum(0).view(column)).to(x.dtype)


def without_padding(x: Tensor) -> Tensor:
    """x (T, N, ...) with zeros for the steps that `ragged` says are padding.

    >>> with ragged(torch.tensor([2])):
    ...     without_padding(torch.ones(3, 1, 1)).flatten().tolist()
    [1.0, 1.0, 0.0]
    """
    lengths = _current.lengths
    if lengths is None:
        return x
    mask = _is_valid(x, lengths)
    return x.masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), 0)


def over_time(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function of (N, ...) to every step of (T, N, ...), time folded into N.

    >>> import torch
    >>> over_time(lambda r: r.flatten(1), torch.rand(4, 2, 3, 5, 5)).shape
    torch.Size([4, 2, 75])
    """
    y = function(x.flatten(0, 1))
    return y.unflatten(0, (x.shape[0], x.shape[1]))
