"""Addresses as arrays in numba's kernels: numbers are passed much quicker than arrays are."""

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.extending import intrinsic


@intrinsic
def pointer(typing: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to a type, for `numba.carray`."""
    made = types.CPointer(like.instance_type)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(made))

    return made(types.int64, like), generate


@numba.njit(error_model="numpy")
def floats(address, shape):
    """A float32 array at an address."""
    return numba.carray(pointer(address, types.float32), shape)


@numba.njit(error_model="numpy")
def small_integers(address, shape):
    """A uint8 array at an address."""
    return numba.carray(pointer(address, types.uint8), shape)
