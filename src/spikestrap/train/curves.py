"""Figures by matplotlib: the transfer curves of a network, for loggers that take figures."""

import math
from typing import Any

from ..unit import Curved
from .extras import require


def curve_figure(units: list[tuple[str, Curved]]) -> Any:
    """A matplotlib figure of each unit's sampled points and curve."""
    columns = min(3, max(1, len(units)))
    rows = max(1, math.ceil(len(units) / columns))
    figure = new_figure(4.0 * columns, 3.2 * rows, "a figure of the curves")
    all_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in all_axes[len(units) :]:
        axes.set_axis_off()
    for (name, unit), axes in zip(units, all_axes, strict=False):
        if unit.sampler.time_steps:
            unit.sampler.plot(ax=axes)
        else:
            axes.text(0.5, 0.5, "never sampled", ha="center", transform=axes.transAxes)
        axes.set_title(name)
    return figure


def new_figure(width: float, height: float, purpose: str) -> Any:
    """An empty matplotlib figure, in inches; purpose: what for, should matplotlib be missing."""
    # Not through pyplot: it would pick a backend and keep global state.
    matplotlib = require("matplotlib.figure", purpose)
    return matplotlib.Figure(figsize=(width, height), layout="constrained")
