"""Whole numbers that a caller gives: Python's, numpy's and other libraries', but no bool."""

from __future__ import annotations

import math
from numbers import Integral

from .errors import SpikestrapError


def whole_number(
    name: str, value: object, low: int, high: float = math.inf, *, kind: str = "a whole number"
) -> int:
    """The value as an int, if it is a whole number from low to high; else SpikestrapError.

    name, kind: what the message says of it.

    >>> import numpy as np
    >>> whole_number("time_steps", np.int64(4), 1)
    4
    >>> whole_number("time_steps", True, 1)
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: time_steps must be a whole number >= 1, got True
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high:
        return int(value)
    bounds = f">= {low}" if high == math.inf else f"from {low} to {high}"
    raise SpikestrapError(f"{name} must be {kind} {bounds}, got {value!r}")


def whole_or_none(name: str, value: object, low: int) -> int | None:
    """The same for what may be None."""
    if value is None:
        return None
    return whole_number(name, value, low, kind="None or a whole number")
