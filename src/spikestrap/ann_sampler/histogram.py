"""Sampling statistics: sums over fixed bins of the mean input.

The bins are those of the float format itself: 2**fine bins an octave, from 2**-24 to 2**24
on either side of zero. So they fit inputs of any scale, need no range, and two halves of
the data give by addition what the whole gives. In a bin the sums of 1, z, a and a**2 are
kept, hence its mean point and scatter; nothing grows with what is sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = ("count", "z", "a", "a2")
_LOWEST, _HIGHEST = -24, 24
_MANTISSA_BITS, _EXPONENT_BIAS = 23, 127


def num_bins(fine: int) -> int:
    """Bins with 2**fine an octave, on both sides of the one around zero.

    >>> num_bins(5)
    3073
    """
    return 2 * ((_HIGHEST - _LOWEST) << fine) + 1


def bin_of(z: Tensor, fine: int) -> Tensor:
    """Index of the bin of each z, ascending with z; beyond the ends, the outermost.

    >>> bin_of(torch.tensor([-1e9, -1.0, 0.0, 1.0, 1e9]), 5).tolist()
    [0, 767, 1536, 2305, 3072]
    """
    bits = z.float().contiguous().view(torch.int32)
    octaves = (_HIGHEST - _LOWEST) << fine
    key = (bits & 0x7FFFFFFF) >> (_MANTISSA_BITS - fine)
    key = (key - ((_EXPONENT_BIAS + _LOWEST) << fine) + 1).clamp_(0, octaves)
    return torch.where(bits < 0, octaves - key, octaves + key).long()


def add_pairs(sums: Tensor, z: Tensor, a: Tensor, fine: int) -> None:
    """Adds the pairs (z, a), each (N, C, ...), to the sums (channels, 4, bins) in float64.

    channels is 1, for all pairs in one, or C. What it takes grows with the pairs alone: there may
    be far more bins than pairs.
    """
    channels, rows, bins = sums.shape
    index = bin_of(z, fine)
    if channels > 1:
        offset = torch.arange(channels, device=z.device) * rows * bins
        index += offset.view(-1, *[1] * (z.ndim - 2))
    index, z, a = index.flatten(), z.double().flatten(), a.double().flatten()
    table = sums.view(-1)
    for row, terms in enumerate((torch.ones_like(z), z, a, a * a)):
        table[row * bins :].scatter_add_(0, index, terms)
