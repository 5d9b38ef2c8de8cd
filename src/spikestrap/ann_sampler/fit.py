"""From sampled statistics to a transfer curve: a monotone least-squares spline.

The curve is piecewise linear on a uniform grid around the inputs where the rate changes.
Its values minimise

    sum_bins n (y(z) - a)**2 / sum n  +  roughness * sum (second differences of y)**2

subject to 0 <= y_0 <= y_1 <= ... <= 1: a penalised spline (Eilers and Marx, Statistical
Science 11, 1996) with its increments as the unknowns of a non-negative least squares
(Lawson and Hanson, 1974). The grid follows the data at each fit. The penalty carries the
curve over gaps in the data; it falls with the number of samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy  # which loads scipy.optimize where it is first used
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The grid leaves out inputs that bring less than this share of all spikes, on either side ...
_FEW = 0.001
# ... and those whose rate is that close to 1.
_SATURATED = 0.995
# The smooth slope's window, as a share of the ramp.
_WINDOW = 0.5
# What channels have everywhere that sampling saw idle, as a share of the ramp's slope.
_IDLE = 0.05
_POINTS = 16  # of the mean over a step
# As IF has it at a threshold of 1. Behind a silent layer inputs may be 0, which says nothing of
# their scale, and slopes without a bound would multiply from one such layer to the next.
_STEEPEST_ESCAPE = 1.0
# The ramp holds at least _LEARNING of the inputs, or is at least _OF_THE_BULK of the range in which
# the middle half of them lies. Around the middle of normal inputs both are a standard deviation.
_LEARNING = 0.38
_OF_THE_BULK = 0.75
_ROUGHNESS = 1e-5
_ROUGHNESS_A_SAMPLE = 3.0
# Whether rates fall is asked of the means of so many groups of inputs at most, ...
_GROUPS = 16
_PAIRS = 20  # ... of so many pairs each at least, ...
_BEYOND_NOISE = 3.0  # ... and of what is more than so many times their variance.


class Ramp(NamedTuple):
    """What is left of a staircase when its steps are levelled out.

    It starts half a step before the first step and ends half a step behind the last one that
    the rate reaches. step: the inputs over which the mean is taken that levels them out.
    """

    start: float
    end: float
    step: float

    @property
    def length(self) -> float:
        return self.end - self.start


class Fit(NamedTuple):
    """A curve on the grid origin, origin + width, ...: values (cells + 1,) there.

    residual: root mean square distance of the sampled rates from the curve. ramp: that of the
    sampled rates.
    """

    origin: float
    width: float
    values: Array
    residual: float
    ramp: Ramp


def fit_curve(sums: Array, cells: int, time_steps: int) -> Fit:
    """Fits a curve of `cells` cells to the sums (4, bins) in `histogram`.

    The grid holds the inputs where the rate changes, the ramp, and half of a window on either side.
    """
    count, z, a, _ = sums[:, sums[0] > 0]
    x, y = z / count, a / count
    low, high, rising = _active_range(x, y, count)
    # Far outliers must not stretch the ramp either.
    near = np.clip(x, 2 * low - high, high)
    ramp = _ramp(near, rising, time_steps, x, count)
    origin = min(low, ramp.start - _WINDOW / 2 * ramp.length)
    width = (max(high, ramp.end + _WINDOW / 2 * ramp.length) - origin) / cells

    values = _solve((x - origin) / width, y, count, cells)
    fit = Fit(origin, width, values, 0.0, ramp)
    return fit._replace(residual=residual(fit, sums))


def residual(fit: Fit, sums: Array) -> float:
    """Root mean square distance from a curve of the rates in the sums (4, bins)."""
    count, z, a, a2 = sums[:, sums[0] > 0]
    at = np.interp((z / count - fit.origin) / fit.width, np.arange(fit.values.size), fit.values)
    square = float((a2 - 2 * at * a + at**2 * count).sum() / count.sum())
    return max(square, 0.0) ** 0.5


def _active_range(x: Array, y: Array, count: Array) -> tuple[float, float, Array]:
    """The inputs between which the rate changes, and the rates made to rise."""
    rising: Array = scipy.optimize.isotonic_regression(y, weights=count).x
    mass = np.cumsum(count * rising)
    low, high = x[0], x[-1]
    if mass[-1] > 0:
        low = x[np.searchsorted(mass, _FEW * mass[-1])]
        # A few far outliers must not stretch the grid: at most twice what the bulk takes.
        bulk = x[np.searchsorted(mass, (1 - _FEW) * mass[-1])]
        high = min(high, low + 2 * (bulk - low))
    full = np.flatnonzero(rising >= _SATURATED)
    if full.size:
        high = min(high, x[full[0]])
    if not high > low:
        reach = max(abs(float(low)), 1e-6)
        return float(low) - reach / 2, float(low) + reach / 2, rising
    return float(low), float(high), rising


def _ramp(near: Array, rising: Array, time_steps: int, x: Array, count: Array) -> Ramp:
    """The ramp of rates that rise with x, from where they cross the middles between k / T.

    Uneven inputs round off a staircase; where it crosses those they leave alone. A step is taken
    for as wide as steps are in the mean, or for wider, so that enough inputs learn: so that the
    ramp reaches the middle half of them, and 0 if that lies in it, and does not hold too few.
    near: x without far outliers.
    """
    if rising[0] == rising[-1]:
        start, end = float(near[0]), float(near[-1])
        return Ramp(start, end, (end - start) / time_steps)
    middles = (np.arange(time_steps) + 0.5) / time_steps
    crossed = middles[(middles > rising[0]) & (middles <= rising[-1])]
    if not crossed.size:
        crossed = (rising[:1] + rising[-1:]) / 2
    first, last = np.interp(crossed[[0, -1]], rising, near).tolist()
    mean = (last - first) / max(crossed.size - 1, 1)
    low, high = _quantiles([0.25, 0.75], x, count)
    reached = min(max(low, 0.0), high)
    away = max(first - reached, reached - last)
    (half_length,) = _quantiles([_LEARNING], np.abs(x - (first + last) / 2), count)
    least = min(2 * half_length, _OF_THE_BULK * (high - low))
    step = max(mean, 2 * away, least - (last - first))
    return Ramp(first - step / 2, last + step / 2, step)


def _quantiles(shares: list[float], values: Array, count: Array) -> list[float]:
    order = np.argsort(values)
    below = np.cumsum(count[order]) - count[order] / 2
    found: list[float] = np.interp(shares, below / count.sum(), values[order]).tolist()
    return found


def _solve(position: Array, y: Array, count: Array, cells: int) -> Array:
    """Monotone values (cells + 1,) in [0, 1] for points at `position`, in cells."""
    total = count.sum()
    weight = count / total
    place = np.clip(position, 0, cells)
    cell = np.minimum(place.astype(int), cells - 1)
    right = place - cell
    left = 1 - right

    # Normal equations of the interpolation: tridiagonal, filled in by hand.
    normal = np.zeros((cells + 1, cells + 1))
    np.add.at(normal, (cell, cell), weight * left**2)
    np.add.at(normal, (cell + 1, cell + 1), weight * right**2)
    np.add.at(normal, (cell, cell + 1), weight * left * right)
    np.add.at(normal, (cell + 1, cell), weight * left * right)
    target = np.zeros(cells + 1)
    np.add.at(target, cell, weight * left * y)
    np.add.at(target, cell + 1, weight * right * y)

    first = np.diff(np.eye(cells + 1), axis=0)
    second = np.diff(first, axis=0)
    roughness = _ROUGHNESS + _ROUGHNESS_A_SAMPLE / total
    normal += roughness * second.T @ second
    # A trace of flatness decides where the data says nothing at all.
    normal += 1e-8 * first.T @ first + 1e-12 * np.eye(cells + 1)

    root = np.linalg.cholesky(normal).T
    increments = np.tril(np.ones((cells + 1, cells + 1)))
    # The upper bound as one more unknown: what is left up to 1, under a heavy weight.
    heavy = 1e3
    system = np.zeros((cells + 2, cells + 2))
    system[:-1, :-1] = root @ increments
    system[-1] = heavy
    right_side = np.append(np.linalg.solve(root.T, target), heavy)
    solution, _ = scipy.optimize.nnls(system, right_side)
    return np.minimum(np.cumsum(solution[:-1]), 1.0)


# Slopes (cells + 2,): before the curve's grid, in its cells, and behind it.


def fit_slopes(fit: Fit) -> Array:
    """slope="fit": the curve's own; 0 before and behind."""
    return np.pad(np.diff(fit.values) / fit.width, 1)


def smooth_slopes(fit: Fit) -> Array:
    """slope="smooth": of the curve without its steps the secant over a window; 0 off the grid.

    Without steps is as the mean over `ramp.step`, the width of one or more: of a staircase that is
    a ramp from half of it before its first to half of it behind its last step, and inputs there
    learn as well.
    """
    cells, ramp = fit.values.size - 1, fit.ramp
    grid: Array = fit.origin + fit.width * np.arange(cells + 1, dtype=np.float64)
    centre = fit.origin + fit.width * (np.arange(cells) + 0.5)
    half = max(_WINDOW / 2 * ramp.length, fit.width / 2)
    at = centre[:, None] + ramp.step * ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5)
    rise = np.interp(at + half, grid, fit.values) - np.interp(at - half, grid, fit.values)
    return np.pad(rise.mean(1) / (2 * half), 1)


def idle_slope(fit: Fit) -> float:
    """Of a line for idle channels; 0 of a constant curve, which all leave by `escape_slopes`."""
    if is_constant(fit):
        return 0.0
    return _IDLE * float(np.ptp(fit.values)) / max(fit.ramp.length, fit.width)


def rescaled_slopes(fit: Fit) -> Array:
    """slope="rescaled": as lava-dl has it, in units of the mean slope, plus 1e-5."""
    end = fit.origin + fit.width * (fit.values.size - 1)
    rescaled: Array = fit_slopes(fit) * abs(end) / max(float(fit.values[-1]), 1e-6) + 1e-5
    return rescaled


def escape_slopes(fit: Fit) -> Array:
    """For a constant curve: the slope of a line that would leave it, so that training can."""
    cells = fit.values.size - 1
    reach = max(abs(fit.origin), abs(fit.origin + cells * fit.width))
    return np.full(cells + 2, min(0.5 / reach, _STEEPEST_ESCAPE))


def is_constant(fit: Fit) -> bool:
    """Whether the rate is the same everywhere, up to what the solver leaves."""
    return bool(np.ptp(fit.values) < 5e-3)


def misfit_by_fall(sums: Array) -> float:
    """How far rates that fall as inputs rise are from any rising curve: root mean square, or 0.

    Between the means of groups of neighbouring inputs, less what their noise makes of it. What
    rates scatter at the same input is not in it.
    """
    count, _, a, a2 = sums[:, sums[0] > 0]
    total = count.sum()
    groups = min(_GROUPS, int(total // _PAIRS))
    group = (groups * (np.cumsum(count) - count / 2) / total).astype(int)
    n, a, a2 = (np.bincount(group, row) for row in (count, a, a2))
    n, a, a2 = n[n > 0], a[n > 0], a2[n > 0]
    rates = a / n
    rising = scipy.optimize.isotonic_regression(rates, weights=n).x
    noise = np.maximum(a2 / n - rates**2, 0).sum()
    square = (n * (rates - rising) ** 2).sum() - _BEYOND_NOISE * noise
    return float(max(square, 0.0) / total) ** 0.5
