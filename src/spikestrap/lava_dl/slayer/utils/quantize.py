"""Rounding with a gradient that passes."""

from __future__ import annotations

import math
from enum import IntEnum

from torch import Tensor

from ....errors import SpikestrapError
from ....grid import Grid


class QUANTIZE_MODE(IntEnum):
    """How `quantize` rounds: to the nearest step, or down."""

    ROUND = 0
    FLOOR = 1


def quantize(input: Tensor, step: float = 1, mode: QUANTIZE_MODE = QUANTIZE_MODE.ROUND) -> Tensor:
    """Multiples of step, straight through in the backward pass.

    >>> import torch
    >>> quantize(torch.tensor([0.3, 0.9]), 0.5).tolist()
    [0.5, 1.0]
    """
    if mode not in tuple(QUANTIZE_MODE):
        raise SpikestrapError(f"quantize: mode must be a QUANTIZE_MODE, got {mode!r}")
    rounded = Grid(step, -math.inf, math.inf)(input)
    if mode is QUANTIZE_MODE.ROUND:
        return rounded
    return rounded - step * (rounded.detach() > input.detach()).to(input.dtype)
