"""Products of spikes with weights, where each spike adds a row and what is silent costs nothing.

A layer whose neurons fire in a tenth of the steps does a tenth of a dense product's additions,
forward and for the gradient of its weight; that of its input is dense. A row's sum is taken in
an order that its spikes alone decide, whatever else is in the batch and however many threads
share it out. So it is the product's size that decides whether rows are added up, not how many
spike: where many do, a dense product would be quicker.
"""

from __future__ import annotations

import functools
from array import array
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from . import threads
from .backend import readable_by_kernels
from .caching import cached
from .pointers import pointer
from .room import room_for
from .rows import COLUMNS, list_floats, packed, sum_rows

# Below so many rows, columns of either kind, and multiplications in all, a dense product is too
# quick to beat: at the least size, forward and backward, where more than about 0.15 spike.
_FEWEST_ROWS, _FEWEST_COLUMNS, _FEWEST_PRODUCTS = 256, 128, 2**25
# Rows whose spikes are taken at a time, so that they stay in cache; and those of the gradient of
# a weight.
_ROWS, _CHUNK = 64, 256
# Columns a thread takes at the least.
_BLOCK = 64


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, by adding rows of the weight where x is spikes of 0 and 1 and
    the product is large.

    x (T, N, K), weight (O, K), bias (O,), to (T, N, O).

    >>> x, weight = (torch.rand(8, 64, 256) < 0.1).float(), torch.rand(256, 256)
    >>> torch.allclose(linear(x, weight, None), x @ weight.T, atol=1e-4)
    True
    """
    if not _worth_it(x, weight, bias):
        return F.linear(x, weight, bias)
    rows = x.detach().contiguous().view(-1, x.shape[-1])
    starts = _starts(rows)
    if starts is None:
        return F.linear(x, weight, bias)
    z: Tensor = _Linear.apply(x, weight, bias, rows, starts)
    return z


def _worth_it(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether to look for spikes in x. What the kernels do not know, and all that is wrong, is
    left to torch.
    """
    return (
        x.ndim == 3
        and x.shape[0] * x.shape[1] >= _FEWEST_ROWS
        and x.numel() * weight.shape[0] >= _FEWEST_PRODUCTS
        and x.shape[2] == weight.shape[1]
        and min(weight.shape) >= _FEWEST_COLUMNS
        and weight.dtype is torch.float32
        and weight.device.type == "cpu"
        and (bias is None or (bias.dtype is torch.float32 and bias.shape == weight.shape[:1]))
        and not torch.is_autocast_enabled("cpu")
        and readable_by_kernels(x)
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, starts: np.ndarray
    ) -> Tensor:
        which = np.empty(starts[-1], np.int32)
        table, size = packed(weight.detach().t()), weight.shape[0]
        whole = len(table) * COLUMNS
        start = torch.zeros(whole, dtype=torch.float32, device="cpu")
        if bias is not None:
            start[:size] = bias.detach()
        z = room_for((*x.shape[:-1], whole))
        arrays = (rows, starts, which, table, start, z)
        _run(_add_rows, len(rows), arrays, (rows.shape[1], len(table)))
        z = z[..., :size].contiguous()
        ctx.save_for_backward(weight)
        ctx.starts, ctx.which, ctx.shape = starts, which, x.shape
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        grad = grads[0].contiguous().view(-1, weight.shape[0])
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad_x = (grad @ weight).view(ctx.shape) if of_x else None
        grad_bias = grad.sum(0) if of_bias else None
        grad_weight = None
        if of_weight:
            columns = torch.empty(weight.shape[::-1], dtype=torch.float32, device="cpu")
            blocks = -(-weight.shape[0] // _BLOCK)
            arrays = (ctx.starts, ctx.which, grad, columns)
            _run(_add_outer, blocks, arrays, (len(grad), *columns.shape))
            grad_weight = columns.t()
        return grad_x, grad_weight, grad_bias, None, None


def _starts(rows: Tensor) -> np.ndarray | None:
    """Where the spikes of each row begin in a list of all, (R + 1,); None where x is not spikes."""
    counts = np.zeros(len(rows) + 1, np.int64)
    # Most of what is not spikes shows in its first row.
    first = rows[0]
    if not bool(((first == 0) | (first == 1)).all()):
        return None
    _run(_count, len(rows), (rows, counts), (rows.shape[1],))
    return None if counts.min() < 0 else np.cumsum(counts)


def _run(
    kernel: Any, blocks: int, arrays: tuple[Tensor | np.ndarray, ...], sizes: tuple[int, ...]
) -> None:
    """Runs a kernel over range(blocks); it gets addresses of the arrays, then the sizes."""
    places = [a.data_ptr() if isinstance(a, Tensor) else a.ctypes.data for a in arrays]
    count = max(min(threads.available(), blocks), 1)
    numbers, nothing = array("q", [*places, *sizes]), threads.Rows(0, count, 0)
    threads.share_out(kernel().address, blocks, numbers.buffer_info()[0], nothing, nothing)


def _kernel(function: Any) -> Any:
    """Compiles a kernel `(first, end, arguments, workspace, totals)` when it is first asked for."""
    whole = types.int64
    signature = types.void(whole, whole, types.CPointer(whole), whole, whole)
    compiled = cached(numba.cfunc, signature, nopython=True, error_model="numpy")
    return functools.cache(lambda: compiled(function))


@_kernel
def _count(first, end, arguments, workspace, totals):
    """counts[r + 1]: how many spikes row r has; -1 where it has something else."""
    width = arguments[2]
    counts = numba.carray(pointer(arguments[1], types.int64), end + 1)
    rows = numba.carray(pointer(arguments[0], types.float32), (end, width))
    for r in range(first, end):
        row = rows[r]
        ones = zeros = np.int32(0)
        for k in range(width):
            ones += row[k] == np.float32(1)
            zeros += row[k] == np.float32(0)
        counts[r + 1] = ones if ones + zeros == width else -1


@_kernel
def _add_rows(first, end, arguments, workspace, totals):
    """z[r]: the bias, and the weight's column of each spike in row r; which: these, listed."""
    width, parts = arguments[6], arguments[7]
    rows = numba.carray(pointer(arguments[0], types.float32), (end, width))
    starts = numba.carray(pointer(arguments[1], types.int64), end + 1)
    which = numba.carray(pointer(arguments[2], types.int32), starts[end])
    table, bias, z = arguments[3], arguments[4], arguments[5]
    for r in range(first, end):
        list_floats(rows[r], which, starts[r])
    line = 4 * COLUMNS
    for low in range(first, end, _ROWS):
        for p in range(parts):
            for r in range(low, min(low + _ROWS, end)):
                into = z + (r * parts + p) * line
                part = table + p * width * line
                sum_rows(into, bias + p * line, part, arguments[2], starts[r], starts[r + 1])


@_kernel
def _add_outer(first, end, arguments, workspace, totals):
    """Of the gradient of the weight, transposed, the columns of blocks first to end: row k is the
    sum of grad[r] over the rows r in which k spiked.
    """
    steps, width, size = arguments[4], arguments[5], arguments[6]
    starts = numba.carray(pointer(arguments[0], types.int64), steps + 1)
    which = numba.carray(pointer(arguments[1], types.int32), starts[steps])
    low, high = first * _BLOCK, min(end * _BLOCK, size)
    grad = numba.carray(pointer(arguments[2], types.float32), (steps, size))
    out = numba.carray(pointer(arguments[3], types.float32), (width, size))
    # A chunk's spikes, sorted by k.
    begins = np.empty(width + 1, np.int64)
    places = np.empty(width, np.int64)
    sorted_rows = np.empty(_CHUNK * width, np.int32)
    part = np.zeros((_CHUNK, COLUMNS), np.float32)
    total = np.empty(COLUMNS, np.float32)
    for k in range(width):
        out[k][low:high] = np.float32(0)
    for start in range(0, steps, _CHUNK):
        stop = min(start + _CHUNK, steps)
        begins[:] = 0
        for n in range(starts[start], starts[stop]):
            begins[which[n] + 1] += 1
        for k in range(width):
            begins[k + 1] += begins[k]
            places[k] = begins[k]
        for r in range(start, stop):
            for n in range(starts[r], starts[r + 1]):
                k = which[n]
                sorted_rows[places[k]] = r - start
                places[k] += 1
        for column in range(low, high, COLUMNS):
            count = min(COLUMNS, high - column)
            for r in range(start, stop):
                for i in range(count):
                    part[r - start, i] = grad[r, column + i]
            for k in range(width):
                for i in range(count):
                    total[i] = out[k, column + i]
                into = total.ctypes.data
                table, rows = part.ctypes.data, sorted_rows.ctypes.data
                sum_rows(into, into, table, rows, begins[k], begins[k + 1])
                for i in range(count):
                    out[k, column + i] = total[i]
