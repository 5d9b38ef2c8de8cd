"""What takes spikes as bytes: sums of rows of weights, and of windows.

Each runs on the thread that calls it and without the interpreter's lock: who has several
threads gives each its own part of the batch. Features are innermost.
"""

from __future__ import annotations

import numba
import numpy as np

from .caching import cached
from .rows import COLUMNS, list_bytes, sum_rows

# How many rows' spikes are listed at once: lists and results stay in cache.
_ROWS = 64

_jit = cached(numba.njit, nogil=True, error_model="numpy", boundscheck=False)


@_jit
def add_rows(spikes, weight, bias, out):
    """Writes spikes @ weight + bias to out (R, 16 P): each spike adds its row of weight.

    spikes: bytes (R, K). weight: as `rows.packed` has it, (P, K, 16). bias: (16 P,). All are
    C-contiguous.
    """
    parts, inputs, _ = weight.shape
    which = np.empty(_ROWS * inputs, np.int32)
    begins = np.empty(_ROWS + 1, np.int64)
    for first in range(0, spikes.shape[0], _ROWS):
        count = min(_ROWS, spikes.shape[0] - first)
        begins[0] = 0
        for r in range(count):
            begins[r + 1] = list_bytes(spikes[first + r], which, begins[r])
        for p in range(parts):
            low = p * COLUMNS
            table, start = weight[p].ctypes.data, bias[low:].ctypes.data
            for r in range(count):
                into = out[first + r, low:].ctypes.data
                sum_rows(into, start, table, which.ctypes.data, begins[r], begins[r + 1])


@_jit
def pool(spikes, words, window, stride, factor, out):
    """Writes the sum of each window, times factor, to out (R, H', W' C), float32.

    spikes: bytes (R, H, W C), as words of 1 or 8 of them, so many words a pixel: adding words
    adds their bytes, as long as no sum is above 255. window, stride: (height, width).
    """
    line = np.empty_like(spikes[0, 0])
    packed = np.empty_like(line)
    sums = packed.view(np.uint8)
    pixels = out.shape[2] // (words * spikes.itemsize)
    for r in range(spikes.shape[0]):
        for y in range(out.shape[1]):
            for i in range(line.size):
                line[i] = spikes[r, y * stride[0], i]
            for dy in range(1, window[0]):
                for i in range(line.size):
                    line[i] += spikes[r, y * stride[0] + dy, i]
            for x in range(pixels):
                for c in range(words):
                    total = line[x * stride[1] * words + c]
                    for dx in range(1, window[1]):
                        total += line[(x * stride[1] + dx) * words + c]
                    packed[x * words + c] = total
            for i in range(out.shape[2]):
                out[r, y, i] = np.float32(sums[i]) * factor
