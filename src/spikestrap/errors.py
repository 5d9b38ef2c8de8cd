"""The errors and the warning that spikestrap raises.

Every message says what came, what was expected, and where.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

# Packages whose lines lie between the user's and what goes wrong.
_BETWEEN = ("spikestrap", "torch", "lightning", "pytorch_lightning")


class SpikestrapError(Exception):
    """Base of every error that spikestrap raises on purpose.

    >>> import spikestrap as ss
    >>> ss.neuron.IF(threshold=-1.0)
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: IF: threshold must be > 0, got -1
    """


class NotFittedError(SpikestrapError):
    """ANN mode was asked of a unit whose transfer curve was never fitted."""


class MissingPackageError(SpikestrapError, ImportError):
    """What was asked for needs a package that is not installed."""


class SpikestrapWarning(UserWarning):
    """Something runs, but hardly as it was meant: a layer that never spikes, say."""


def warn(message: str) -> None:
    """Warns at the user's line that led here, not at one of ours, of torch or of Lightning.

    That is where to look; and `warnings` shows the same text once a line.
    """
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, SpikestrapWarning, stacklevel=level)


@contextlib.contextmanager
def at(where: object) -> Iterator[None]:
    """Puts where it happened before an error raised within, whose class it keeps.

    >>> with at("block 2"):
    ...     raise SpikestrapError("no weights")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: block 2: no weights
    """
    try:
        yield
    except SpikestrapError as error:
        raise type(error)(f"{where}: {error}") from error
