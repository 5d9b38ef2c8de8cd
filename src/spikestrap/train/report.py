"""A short report of a run: its numbers, its accuracy over time, its transfer curves."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..files import write_file
from ..unit import Curved, units_of
from .extras import require
from .loop import History

_REPORT, _ACCURACY, _CURVES = "report.md", "accuracy.png", "curves.png"


def write_report(path: Path, net: nn.Module, history: History, result: Mapping[str, Any]) -> None:
    """Write ``report.md`` and its figures, ``accuracy.png`` and ``curves.png``, into a run.

    Args:
        path: the run directory.
        net: the trained network; its fitted curves are drawn.
        history: of the training.
        result: the final numbers.
    """
    write_file(path / _ACCURACY, _accuracy_figure(history))
    write_file(path / _CURVES, _png(curve_figure(list(units_of(net)))))
    write_file(path / _REPORT, _text(history, result).encode())


def _text(history: History, result: Mapping[str, Any]) -> str:
    rows = {
        "SNN test accuracy": f"{result['snn_accuracy']:.2f} %",
        "ANN test accuracy": _number(result["ann_accuracy"], " %"),
        "gap": _number(result["gap"], " points"),
        "event rate": f"{result['event_rate']:.3f} spikes a neuron and time step",
        "time steps": result["time_steps"],
        "epochs": f"{result['epochs']} (best: {history.best_epoch + 1})",
        "parameters": f"{result['parameters']:,}",
        "seed": result["seed"],
    }
    rows |= {f"seconds, {name}": f"{value:.1f}" for name, value in result["seconds"].items()}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# {result["recipe"]}, T = {result["time_steps"]}

| | |
|---|---|
{table}

![Validation accuracy over the epochs]({_ACCURACY})

Each unit's sampled points (mean input, firing rate) and the curve fitted to them:

![Transfer curves]({_CURVES})
"""


def _number(value: float | None, suffix: str) -> str:
    return "-" if value is None else f"{value:.2f}{suffix}"


def _accuracy_figure(history: History) -> bytes:
    figure, (axes,) = _figure(1, 1, width=7.0, height=4.0)
    for label, key in (("SNN", "snn_accuracy"), ("ANN", "ann_accuracy")):
        points = [
            (epoch.epoch + 1, getattr(epoch, key))
            for epoch in history.epochs
            if getattr(epoch, key) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.axvline(history.best_epoch + 1, color="grey", linestyle=":", label="kept")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy (%)")
    axes.legend()
    return _png(figure)


def curve_figure(units: list[tuple[str, Curved]]) -> Any:
    """A matplotlib figure of each unit's sampled points and curve."""
    columns = min(3, max(1, len(units)))
    rows = max(1, math.ceil(len(units) / columns))
    figure, all_axes = _figure(rows, columns, width=4.0 * columns, height=3.2 * rows)
    for axes in all_axes[len(units) :]:
        axes.set_axis_off()
    for (name, unit), axes in zip(units, all_axes, strict=False):
        if unit.sampler.time_steps:
            unit.sampler.plot(ax=axes)
        else:
            axes.text(0.5, 0.5, "never sampled", ha="center", transform=axes.transAxes)
        axes.set_title(name)
    return figure


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    # Not through pyplot: it would pick a backend and keep global state.
    matplotlib = require("matplotlib.figure", "the report")
    figure = matplotlib.Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
