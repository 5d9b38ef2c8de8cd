"""Shares a kernel's blocks out among threads, as many as numba is set to.

The threads are those of numba's parallel loops: others would stand in the way of these, which
go on spinning for a while after a loop. One small loop serves all kernels, by address.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange
from numba.extending import intrinsic

_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)


def share_out(address: int, blocks: int, arguments: np.ndarray, workspaces: np.ndarray) -> None:
    """Calls the kernel `(first, end, arguments, workspace)` at an address for ranges that make
    up range(blocks): one a thread, and each with its own row of `workspaces`, at most as
    many as that has.
    """
    pieces = min(len(workspaces), blocks)
    if pieces <= 1:
        _KERNEL(address)(0, blocks, arguments.ctypes.data, workspaces.ctypes.data)
        return
    stride = workspaces.strides[0]
    _share_out(address, pieces, blocks, arguments.ctypes.data, workspaces.ctypes.data, stride)


@intrinsic
def _call(typing: Any, address: Any, first: Any, end: Any, arguments: Any, workspace: Any) -> Any:
    """A kernel at an address."""
    kinds = (address, first, end, arguments, workspace)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        address, *rest = (
            context.cast(builder, value, kind, numba.types.int64)
            for value, kind in zip(values, kinds, strict=True)
        )
        kernel = ir.FunctionType(ir.VoidType(), [value.type for value in rest])
        builder.call(builder.inttoptr(address, kernel.as_pointer()), rest)
        return context.get_dummy_value()

    return numba.types.void(*kinds), generate


@numba.njit(parallel=True, nogil=True, cache=True, error_model="numpy", boundscheck=False)
def _share_out(address, pieces, blocks, arguments, workspace, stride):
    for k in prange(pieces):
        first, end = blocks * k // pieces, blocks * (k + 1) // pieces
        _call(address, first, end, arguments, workspace + k * stride)
