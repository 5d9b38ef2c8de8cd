"""What torch's compiler is told of functions, without loading it: that takes seconds.

The marks of `torch.compiler` load it where they are made, so in every process that imports them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch._compile import _disable_dynamo

P = ParamSpec("P")
R = TypeVar("R")


def loaded() -> bool:
    """Whether the compiler is; without it nothing is compiled."""
    return "torch._dynamo" in sys.modules


def disable(function: Callable[P, R]) -> Callable[P, R]:
    """As `torch.compiler.disable`: it runs uncompiled, and all that it calls."""
    uncompiled = _disable_dynamo(function)  # which loads the compiler at the first call

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (uncompiled if loaded() else function)(*args, **kwargs)

    return call


def assume_constant_result(function: Callable[P, R]) -> Callable[P, R]:
    """As `torch.compiler.assume_constant_result`: who compiles asks when it traces.

    The attribute is all that torch's own does.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
