"""Names of lava-dl that are not carried over say what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def missing_blocks(
    module: str, time_first: Sequence[str] = ("ConvT", "KWTA", "Recurrent"), **more: str
) -> Callable[[str], Any]:
    """The same for the blocks of one neuron in slayer.

    time_first: those that `spikestrap.block` has for that neuron. more: others, or other words.
    """
    there = f"spikestrap.block.{module.rpartition('.')[2]}"
    instead = {name: f"{there}.{name}, time first" for name in time_first}
    instead["TimeDecimation"] = "x.unflatten(-1, (-1, factor)).mean(-1) does it"
    instead["Unpool"] = "spikestrap.block.Upsample repeats pixels, time first"
    return missing(module, {**instead, **more})


def missing_complex_blocks(module: str) -> Callable[[str], Any]:
    """The same for a neuron whose blocks have complex weights."""
    there = f"spikestrap.block.{module.rpartition('.')[2]}"
    return missing_blocks(
        module,
        Affine="the readout has real weights here: slayer.block.cuba.Affine",
        Pool=f"its weights are real here: {there}.Pool, time first",
        ConvT=f"{there}.ComplexConvT, time first",
    )
