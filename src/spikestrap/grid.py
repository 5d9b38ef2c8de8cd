"""Grids: the numbers that Loihi can hold, and rounding to them with a gradient that passes.

A weight w is the integer 64 w on the chip, a threshold and a bias too, a decay d is 4096 d.
(Davies et al., Loihi, IEEE Micro 38, 2018; ranges as in lava.proc.lif and lava-dl.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import SpikestrapError
from .straight_through import straight_through


@dataclass(frozen=True)
class Grid:
    """Multiples of `step` from `low` to `high`, both included.

    Rounds half to even. The gradient passes straight through, also at the ends, so that a
    weight beyond them can come back.

    >>> x = torch.tensor([0.3, 9.0], requires_grad=True)
    >>> y = Grid(0.25, -1.0, 1.0)(x); y.tolist()
    [0.25, 1.0]
    >>> y.sum().backward(); x.grad.tolist()
    [1.0, 1.0]
    """

    step: float
    low: float
    high: float

    def __call__(self, x: Tensor) -> Tensor:
        """x, any shape, rounded to the grid."""
        return straight_through(x, _rounded, self.step, self.low, self.high)


def _rounded(x: Tensor, step: float, low: float, high: float) -> Tensor:
    return torch.clamp(torch.round(x / step) * step, low, high)


BIAS = Grid(1 / 64, -4096 / 64, 4095 / 64)  # 13 bits
THRESHOLD = Grid(1 / 64, 1 / 64, 131071 / 64)  # 17 bits
CURRENT_DECAY = Grid(1 / 4096, 1 / 4096, 1.0)  # a 12-bit register that holds d - 1
VOLTAGE_DECAY = Grid(1 / 4096, 0.0, 4095 / 4096)  # a 12-bit register
STATE = Grid(1 / 4096, -(2**23 - 1) / 4096, (2**23 - 1) / 4096)  # 24 bits


def weight_grid(weight: Tensor, bits: int) -> Grid:
    """The grid of a layer's weights for so many bits, sign included: 2 to 8.

    With 8 bits the even integers from -256 to 254, over 64. With fewer the step is the least of
    2/64, 4/64, 8/64 and so on with which the layer's largest weight still fits; raises
    SpikestrapError where that one is NaN or infinite.

    >>> weight_grid(torch.tensor([3.0]), 8).step * 64, weight_grid(torch.tensor([0.4]), 4).step * 64
    (2.0, 4.0)
    """
    if bits not in range(2, 9):
        raise SpikestrapError(f"bits must be a whole number from 2 to 8, got {bits!r}")
    levels = 2 ** (bits - 1)
    # The least step with 8 bits is also the largest, whatever the weights.
    exponent = 0 if bits == 8 else _exponent(weight, levels, 8 - bits)
    step = 2 * 2**exponent / 64
    return Grid(step, -levels * step, (levels - 1) * step)


def _exponent(weight: Tensor, levels: int, most: int) -> int:
    largest = float(weight.detach().abs().max()) * 64 if weight.numel() else 0.0
    if not math.isfinite(largest):
        raise SpikestrapError(f"expected finite weights, got {largest:g}")
    # The positive side has one level less.
    needed = largest / (2 * (levels - 0.5))
    return min(max(math.ceil(math.log2(needed)), 0) if needed > 0 else 0, most)
