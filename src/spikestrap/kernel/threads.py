"""Shares a kernel's blocks out among threads, as many as numba is set to.

The threads are those of numba's parallel loops: others would stand in the way of these, which
go on spinning for a while after a loop. One small loop serves all kernels, by address.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange
from numba.extending import intrinsic

parallel_jit = numba.njit(
    parallel=True, nogil=True, cache=True, error_model="numpy", boundscheck=False
)
"""For a loop over `numba.prange`."""
_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)


def share_out(
    address: int, blocks: int, arguments: np.ndarray, workspaces: np.ndarray, totals: np.ndarray
) -> None:
    """Calls the kernel `(first, end, arguments, workspace, totals)` at an address for ranges
    that make up range(blocks).

    A range gets a row of `totals`, all to itself, so that sums do not depend on the number of
    threads; a thread gets a row of `workspaces`, and there are no more threads than rows.
    """
    threads = min(len(workspaces), len(totals))
    places = [array.ctypes.data for array in (arguments, workspaces, totals)]
    strides = [workspaces.strides[0], totals.strides[0]]
    if threads > 1:
        _share_out(address, threads, len(totals), blocks, *places, *strides)
        return
    kernel = _kernel(address)
    for row in range(len(totals)):
        first, end = blocks * row // len(totals), blocks * (row + 1) // len(totals)
        kernel(first, end, *places[:2], places[2] + row * strides[1])


def run(address: int, blocks: int, arguments: np.ndarray) -> None:
    """The same on the calling thread, of a kernel that has neither workspace nor totals."""
    _kernel(address)(0, blocks, arguments.ctypes.data, 0, 0)


@functools.cache
def _kernel(address: int) -> Callable[..., None]:
    return _KERNEL(address)


@intrinsic
def _call(
    typing: Any, address: Any, first: Any, end: Any, arguments: Any, workspace: Any, totals: Any
) -> Any:
    """A kernel at an address."""
    kinds = (address, first, end, arguments, workspace, totals)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        address, *rest = (
            context.cast(builder, value, kind, numba.types.int64)
            for value, kind in zip(values, kinds, strict=True)
        )
        kernel = ir.FunctionType(ir.VoidType(), [value.type for value in rest])
        builder.call(builder.inttoptr(address, kernel.as_pointer()), rest)
        return context.get_dummy_value()

    return numba.types.void(*kinds), generate


@parallel_jit
def _share_out(
    address, threads, rows, blocks, arguments, workspaces, totals, workspace_bytes, total_bytes
):
    for k in prange(threads):
        workspace = workspaces + k * workspace_bytes
        for row in range(rows * k // threads, rows * (k + 1) // threads):
            first, end = blocks * row // rows, blocks * (row + 1) // rows
            _call(address, first, end, arguments, workspace, totals + row * total_bytes)
