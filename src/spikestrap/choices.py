"""One of several names that a caller gives."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .errors import SpikestrapError


def check_choice(name: str, value: Any, known: Collection[str]) -> None:
    """Raises SpikestrapError unless the value is one of those known, which the message lists.

    >>> check_choice("reset", "zero", ("zero", "subtract"))
    >>> check_choice("reset", "hard", ("zero", "subtract"))
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: reset must be one of zero, subtract; got 'hard'
    """
    if value not in known:
        raise SpikestrapError(f"{name} must be one of {', '.join(known)}; got {value!r}")
