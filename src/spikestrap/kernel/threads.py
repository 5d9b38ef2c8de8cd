"""Shares a kernel's blocks out among threads: as many as torch is set to, if numba has them.

The threads are those of numba's parallel loops: others would stand in the way of these, which
go on spinning for a while after a loop. One small loop serves all kernels, by address.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numba
import torch
from llvmlite import ir
from numba import prange
from numba.extending import intrinsic

from .caching import cached

_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)
_jit = cached(numba.njit, parallel=True, nogil=True, error_model="numpy", boundscheck=False)
_one_at_a_time = threading.Lock()


def available() -> int:
    """How many threads loops run on.

    >>> available() <= torch.get_num_threads()
    True
    """
    threads = torch.get_num_threads()
    return min(threads, _numbas()) if threads > 1 else 1


def parallel_jit(function: Callable[..., None]) -> Callable[..., None]:
    """For a loop over `numba.prange`, called from Python: it runs on the threads `available`."""
    loop = _jit(function)

    @functools.wraps(function)
    def run(*arguments: Any) -> None:
        set_to = _numbas()
        with _turn():
            if set_to <= torch.get_num_threads():
                loop(*arguments)
                return
            numba.set_num_threads(torch.get_num_threads())
            try:
                loop(*arguments)
            finally:
                numba.set_num_threads(set_to)

    return run


@functools.cache
def _turn() -> AbstractContextManager[Any]:
    """What to hold while a loop runs, once numba's threads have started.

    Of numba's threading layers one, "workqueue", ends the process where two threads run loops at
    a time.
    """
    return _one_at_a_time if numba.threading_layer() == "workqueue" else nullcontext()


def _numbas() -> int:
    """How many threads numba is set to."""
    _launch()
    threads: int = numba.get_num_threads()
    return threads


@functools.cache
def _launch() -> None:
    """Starts numba's threads. OpenMP's come with a number, which torch would take for its own."""
    before = torch.get_num_threads()
    numba.get_num_threads()
    torch.set_num_threads(before)


class Rows(NamedTuple):
    """A matrix in memory: the address of its first row, how many there are, bytes from one to the
    next. What holds the memory must outlive it.
    """

    start: int
    rows: int
    stride: int


def share_out(address: int, blocks: int, arguments: int, workspaces: Rows, totals: Rows) -> None:
    """Calls the kernel `(first, end, arguments, workspace, totals)` at an address for ranges
    that make up range(blocks).

    arguments: their address, to be kept alive as well. A range gets a row of `totals`, all to
    itself, so that sums do not depend on the number of threads; a thread gets a row of
    `workspaces`, and there are no more threads than rows.
    """
    rows = totals.rows
    threads = min(workspaces.rows, rows)
    if threads > 1:
        places = arguments, workspaces.start, totals.start, workspaces.stride, totals.stride
        _share_out(address, threads, rows, blocks, *places)
        return
    kernel = _kernel(address)
    for row in range(rows):
        first, end = blocks * row // rows, blocks * (row + 1) // rows
        kernel(first, end, arguments, workspaces.start, totals.start + row * totals.stride)


def run(address: int, blocks: int, arguments: int) -> None:
    """The same on the calling thread, of a kernel that has neither workspace nor totals."""
    _kernel(address)(0, blocks, arguments, 0, 0)


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
