"""Pooling of windows of 2 x 2, side by side: the sum of each, over a divisor.

torch's own takes five times as long, forward and backward, where it fills all of the gradient
with zeros first. For other windows it is not to be beaten like this.
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
from .pairs import WINDOWS, average, spread
from .pointers import floats
from .threads import parallel_jit

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
        size = (*x.shape[:2], *(size // 2 for size in ctx.size))
        out = torch.empty(size, dtype=torch.float32, device="cpu")
        _run(_gather, x, out, ctx.size, divisor)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Spread.apply(grads[0], ctx.size, ctx.divisor), None


class _Spread(torch.autograd.Function):
    """From windows to images: each of a window gets its value over the divisor."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, size: tuple[int, int], divisor: int) -> Tensor:
        ctx.divisor = divisor
        out = torch.empty((*grad.shape[:2], *size), dtype=torch.float32, device="cpu")
        _run(_spread, grad.contiguous(), out, size, divisor)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Gather.apply(grads[0].contiguous(), ctx.divisor), None, None


def _run(loops: Any, x: Tensor, out: Tensor, size: tuple[int, int], divisor: int) -> None:
    """Over images (N, C, H, W) in memory, H and W being the size."""
    images = math.prod(out.shape[:2])
    loops(x.data_ptr(), out.data_ptr(), images, *size, np.float32(divisor))


# The loops hand addresses on and nothing else, see `curve_loops`.


@parallel_jit
def _gather(x, out, images, height, width, divisor):
    rows, columns = height // 2, width // 2
    for m in prange(images):
        for i in range(rows):
            upper = x + 4 * (m * height + 2 * i) * width
            into = out + 4 * (m * rows + i) * columns
            for j in range(0, columns, WINDOWS):
                left = upper + 8 * j
                average(left, left + 4 * width, into + 4 * j, min(WINDOWS, columns - j), divisor)


@parallel_jit
def _spread(grad, out, images, height, width, divisor):
    rows, columns = height // 2, width // 2
    for m in prange(images):
        for i in range(rows):
            upper = out + 4 * (m * height + 2 * i) * width
            lower, row = upper + 4 * width, grad + 4 * (m * rows + i) * columns
            for j in range(0, columns, WINDOWS):
                count = min(WINDOWS, columns - j)
                spread(row + 4 * j, upper + 8 * j, lower + 8 * j, count, divisor)
            if width % 2:
                _clear(upper + 8 * columns, 1)
                _clear(lower + 8 * columns, 1)
        if height % 2:
            _clear(out + 4 * (m * height + 2 * rows) * width, width)


@_jit
def _clear(row, count):
    floats(row, count)[:] = np.float32(0)
