"""Names of lava-dl that are not carried over say what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SpikestrapError


def missing(module: str, instead: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module: raises, with what there is instead.

    A SpikestrapError for the names in `instead`, so that `from module import name` shows it
    as well; an AttributeError, as Python expects, for all others.

    >>> missing("slayer", {"auto": "write the blocks down"})("auto")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: slayer.auto is not carried over: write the blocks down
    """
    short = module.removeprefix("spikestrap.lava_dl.")

    def __getattr__(name: str) -> Any:
        if name in instead:
            raise SpikestrapError(f"{short}.{name} is not carried over: {instead[name]}")
        raise AttributeError(
            f"{short} has no {name!r}; docs/from-lava-dl.md lists what there is of lava-dl"
        )

    return __getattr__
