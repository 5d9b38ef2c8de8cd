"""A drawing of sampled bins and the curve fitted to them, by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np

from .fit import Array


def plot_curve(
    sums: Array, origin: float, width: float, values: Array, fitted: bool, ax: Any = None
) -> Any:
    """Draws the sums (4, bins) as points, and the curve if it is fitted; returns the axes.

    origin, width: of the curve's first cell. values: the rates at the ends of its cells.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.gca()
    count, z, a, _ = sums[:, sums[0] > 0]
    high = origin + width * (len(values) - 1)
    reach = (high - origin) / 4
    left, right = origin - reach, high + reach
    if count.size:
        mean = z / count
        seen = (mean > left) & (mean < right)
        size = 4 + 60 * (count / count.max()) ** 0.5
        ax.scatter(mean[seen], (a / count)[seen], s=size[seen], alpha=0.4, label="SNN")
    if fitted:
        grid = np.linspace(left, right, 500)
        rates = np.interp(grid, np.linspace(origin, high, len(values)), values)
        ax.plot(grid, rates, "C1", label="curve")
    ax.set_xlabel("mean input")
    ax.set_ylabel("rate")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax
