"""Numbers that a caller gives: Python's, numpy's and other libraries', but no bool."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

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


def finite_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """The value as a float, if it is a finite number from low to high; else SpikestrapError.

    >>> finite_number("memory", 1, 0.0, 1.0)
    1.0
    >>> finite_number("learning_rate", float("nan"), 0.0)
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: learning_rate must be a finite number >= 0, got nan
    """
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's
        number = math.nan
    if math.isfinite(number) and low <= number <= high:
        return number
    bounds = "" if low == -math.inf else f" >= {low:g}"
    if high < math.inf:
        bounds = f" from {low:g} to {high:g}"
    raise SpikestrapError(f"{name} must be a finite number{bounds}, got {value!r}")
