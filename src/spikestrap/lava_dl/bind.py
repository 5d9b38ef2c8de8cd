"""The classes of one neuron, for `bootstrap` or for `slayer`.

bootstrap bootstraps, so ANN is the mode unless told otherwise; slayer trains directly, in SNN mode
and with a delay of one step.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from .layers import Conv, Dense, Input, Pool, Recurrent
from .readout import Affine, Average, Flatten, Output
from .surface import Family, TimeLast

SURFACES = (Input, Dense, Conv, Pool, Flatten, Affine, Average)
DIRECT = (*SURFACES, Recurrent)
RESONATOR = (Input, Dense, Conv, Flatten, Average)
SIGMA_DELTA = (Input, Dense, Conv, Pool, Flatten, Average, Output)


def bind(
    family: Family, module: str, *, direct: bool, surfaces: Sequence[type[TimeLast]] = SURFACES
) -> tuple[Any, ...]:
    """The classes in `surfaces` for blocks of that neuron, to be names of `module`.

    direct: as in slayer, else as in bootstrap.
    """
    names = {"family": family, "direct": direct, "__module__": module}
    made = []
    for surface in surfaces:
        example_free = (inspect.getdoc(surface) or "").partition(">>>")[0].rstrip()
        made.append(type(surface.__name__, (surface,), {**names, "__doc__": example_free}))
    return tuple(made)
