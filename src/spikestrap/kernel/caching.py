"""numba's decorators, which keep what they compile on disk wherever there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def cached(decorator: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """`decorator(*arguments, cache=True, **options)`, and without a cache where none can be.

    numba writes it beside the function's file, or to the user's cache folder; NUMBA_CACHE_DIR names
    another place. Where none can be written it refuses the function.

    >>> import numba
    >>> cached(numba.njit, nogil=True)(abs_difference := lambda a, b: abs(a - b))(1, 3)
    2
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return decorator(*arguments, cache=True, **options)(function)
        except RuntimeError:
            return decorator(*arguments, **options)(function)

    return compiled
