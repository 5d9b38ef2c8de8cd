"""Blocks bound to a neuron: the same classes, taking a dict of that neuron's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ..neuron import Neuron
from .base import Affine, Conv, ConvT, Dense, Input, Pool
from .complex import ComplexConv, ComplexConvT, ComplexDense
from .kwta import KWTA
from .recurrent import Recurrent

BOUND = (Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA)
COMPLEX = (ComplexDense, ComplexConv, ComplexConvT)


def bind(neuron_type: type[Neuron], module: str, blocks: Sequence[Any] = BOUND) -> tuple[Any, ...]:
    """The blocks with a neuron dict of that type, to be names of `module`."""
    made = []
    for block in blocks:
        example_free = (inspect.getdoc(block) or "").partition(">>>")[0].rstrip()
        names = {
            "neuron_type": neuron_type,
            "__module__": module,
            "__doc__": f"`block.{block.__name__}` with the parameters of `{neuron_type.__name__}`"
            f" as a dict.\n\n{example_free}",
        }
        made.append(type(block.__name__, (block,), names))
    return tuple(made)
