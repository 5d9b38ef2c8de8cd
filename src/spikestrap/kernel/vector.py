"""Functions for the generated kernels, in float32 arithmetic that compilers vectorize.

libm's are called one value at a time. `exp` is within 2 units in the last place, and 0
where it is below 2**-125; `sigmoid` is within 4.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_LOG2_E = np.float32(1 / math.log(2))
# ln 2 in two parts, the first with few enough bits that its multiples are exact.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
_ROUND = np.float32(1.5 * 2**23)  # adding it leaves no place for a fraction
_ZERO = np.float32(0)
_ONE = np.float32(1)
_TWO = np.float32(2)
_LOWEST, _HIGHEST = np.float32(-125 * math.log(2)), np.float32(89.0)


@numba.njit(inline="always")
def power_of_two(n):
    """2**n for -126 <= n <= 127."""
    return np.int32((np.int32(127) + n) << np.int32(23)).view(np.float32)


@numba.njit(inline="always")
def exp(x):
    """exp(x): x = n ln 2 + r with |r| <= ln 2 / 2, and a Taylor polynomial for exp(r)."""
    y = _HIGHEST if x > _HIGHEST else x
    y = _LOWEST if not (y >= _LOWEST) else y  # NaN as well
    k = (y * _LOG2_E + _ROUND) - _ROUND
    n = np.int32(k)
    r = (y - k * _LN2_HIGH) - k * _LN2_LOW
    p = _C6 + r * _C7
    p = _C5 + r * p
    p = _C4 + r * p
    p = _C3 + r * p
    p = _C2 + r * p
    p = _ONE + (r + r * r * p)
    # 2**128 is not a float, but 2 * 2**127 may well be times p.
    e = (p + p) * power_of_two(np.int32(n - np.int32(1)))
    return x if x != x else (_ZERO if x < _LOWEST else e)


@numba.njit(inline="always")
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return _ONE / (_ONE + exp(-x))


@numba.njit(inline="always")
def sign(x):
    """-1, 0 or 1."""
    return (_ONE if x > _ZERO else _ZERO) - (_ONE if x < _ZERO else _ZERO)


@numba.njit(cache=True)
def gather(values, lo, inner, sums):
    """Adds each neuron's value to the sum of its channel."""
    for i in range(values.size):
        sums[((lo + i) // inner) % sums.size] += values[i]


@numba.njit(cache=True)
def spread(values, lo, inner, out):
    """The values of channels, one for each of the neurons from lo on."""
    channel = (lo // inner) % values.size
    left = inner - lo % inner
    for i in range(out.size):
        out[i] = values[channel]
        left -= 1
        if left == 0:
            left = inner
            channel = channel + 1 if channel + 1 < values.size else 0
