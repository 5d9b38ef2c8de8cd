"""Tensors as the arrays that kernels take; views where their memory allows it."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def flat(x: Tensor) -> np.ndarray:
    """Any shape as a contiguous array (M,).

    >>> import torch
    >>> flat(torch.zeros(2, 3)).shape
    (6,)
    """
    return x.detach().contiguous().view(-1).numpy()


def inner(z: Tensor) -> int:
    """How many neighbours in memory share a channel, axis 2 of z (T, N, C, ...).

    >>> import torch
    >>> inner(torch.zeros(4, 2, 3)), inner(torch.zeros(4, 2, 3, 5, 6))
    (1, 30)
    """
    return max(math.prod(z.shape[3:]), 1)
