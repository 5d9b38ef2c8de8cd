"""A sum of rows: what products of spikes with weights come to."""

from __future__ import annotations

import numba


@numba.njit(error_model="numpy")
def add(total, rows, which, begin, end, low, high):
    """Adds to total (high - low,) the columns low to high of the rows which[begin:end].

    Eight at a time, so that the sum is read and written once for all of them.
    """
    n = begin
    while n + 8 <= end:
        a, b = rows[which[n]][low:high], rows[which[n + 1]][low:high]
        c, d = rows[which[n + 2]][low:high], rows[which[n + 3]][low:high]
        e, f = rows[which[n + 4]][low:high], rows[which[n + 5]][low:high]
        g, h = rows[which[n + 6]][low:high], rows[which[n + 7]][low:high]
        for i in range(total.size):
            total[i] += ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]))
        n += 8
    while n < end:
        a = rows[which[n]][low:high]
        for i in range(total.size):
            total[i] += a[i]
        n += 1
