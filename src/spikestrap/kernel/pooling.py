"""Pooling of windows of 2 x 2, side by side: the sum of each, over a divisor.

torch's own takes a window at a time, and fills all of the gradient with zeros before it adds.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.nn import functional as F

from .backend import readable_by_kernels
from .memory import in_memory
from .pairs import WINDOWS, available, average, spread
from .pointers import floats
from .room import room_for
from .threads import parallel_jit
from .vector import FLOAT_BYTES

_jit = numba.njit(error_model="numpy", boundscheck=False)


def pool(
    x: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    divisor: int,
) -> Tensor:
    """`torch.nn.functional.avg_pool2d` of x (N, C, H, W), to the same bits.

    >>> x = torch.tensor([[[[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]]])
    >>> pool(x, (2, 2), (2, 2), (0, 0), 4)
    tensor([[[[3.5000]]]])
    """
    if (window, stride, padding) == ((2, 2), (2, 2), (0, 0)) and _worth_it(x):
        pooled: Tensor = _Gather.apply(x, divisor)
        return pooled
    return F.avg_pool2d(x, window, stride, padding, divisor_override=divisor)


def _worth_it(x: Tensor) -> bool:
    """What is wrong is left to torch as well."""
    return (
        x.ndim == 4
        and x.is_contiguous()
        and x.numel() > 0
        and min(x.shape[2:]) >= 2
        and readable_by_kernels(x)
    )


class _Gather(torch.autograd.Function):
    """From images to windows; its derivative is `_Spread`, and the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, divisor: int) -> Tensor:
        ctx.size, ctx.divisor = x.shape[2:], divisor
        height, width = ctx.size
        shape = (*x.shape[:2], height // 2, width // 2)
        return _run(_gather, x, shape, ctx.size, divisor)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Spread.apply(grads[0], ctx.size, ctx.divisor), None


class _Spread(torch.autograd.Function):
    """From windows to images: each of a window gets its value over the divisor."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, size: tuple[int, int], divisor: int) -> Tensor:
        ctx.divisor = divisor
        return _run(_spread, grad, (*grad.shape[:2], *size), size, divisor)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Gather.apply(grads[0], ctx.divisor), None, None


def _run(
    loops: Any, x: Tensor, shape: tuple[int, ...], size: tuple[int, int], divisor: int
) -> Tensor:
    """What the loops make of x, of that shape; size: height and width of the larger images."""
    x = x.contiguous()
    x = x if in_memory(x) else x.clone()  # a gradient may be a negated tensor, or zeros in name
    out = room_for(shape)
    images = math.prod(shape[:2])
    loops(x.data_ptr(), out.data_ptr(), images, *size, np.float32(divisor), available())
    return out


# The loops hand addresses on and nothing else, see `curve_loops`.


@parallel_jit
def _gather(x, out, images, height, width, divisor, masked):
    rows, columns = height // 2, width // 2
    for m in prange(images):
        for i in range(rows):
            upper = x + FLOAT_BYTES * (m * height + 2 * i) * width
            lower = upper + FLOAT_BYTES * width
            into = out + FLOAT_BYTES * (m * rows + i) * columns
            if masked:
                for j in range(0, columns, WINDOWS):
                    left, count = 2 * FLOAT_BYTES * j, min(WINDOWS, columns - j)
                    average(upper + left, lower + left, into + FLOAT_BYTES * j, count, divisor)
            else:
                _average_row(upper, lower, into, columns, divisor)


@_jit
def _average_row(upper, lower, out, count, divisor):
    above, below, into = floats(upper, 2 * count), floats(lower, 2 * count), floats(out, count)
    for j in range(count):
        # In torch's order.
        total = above[2 * j] + above[2 * j + 1]
        total += below[2 * j]
        total += below[2 * j + 1]
        into[j] = total / divisor


@parallel_jit
def _spread(grad, out, images, height, width, divisor, masked):
    rows, columns = height // 2, width // 2
    for m in prange(images):
        for i in range(rows):
            row = grad + FLOAT_BYTES * (m * rows + i) * columns
            upper = out + FLOAT_BYTES * (m * height + 2 * i) * width
            lower = upper + FLOAT_BYTES * width
            if masked:
                for j in range(0, columns, WINDOWS):
                    left, count = 2 * FLOAT_BYTES * j, min(WINDOWS, columns - j)
                    spread(row + FLOAT_BYTES * j, upper + left, lower + left, count, divisor)
            else:
                _spread_row(row, upper, lower, columns, divisor)
            if width % 2:
                _clear(upper + 2 * FLOAT_BYTES * columns, 1)
                _clear(lower + 2 * FLOAT_BYTES * columns, 1)
        if height % 2:
            _clear(out + FLOAT_BYTES * (m * height + 2 * rows) * width, width)


@_jit
def _spread_row(row, upper, lower, count, divisor):
    values, above, below = floats(row, count), floats(upper, 2 * count), floats(lower, 2 * count)
    for j in range(count):
        value = values[j] / divisor
        above[2 * j] = value
        above[2 * j + 1] = value
    below[:] = above


@_jit
def _clear(row, count):
    floats(row, count)[:] = np.float32(0)
