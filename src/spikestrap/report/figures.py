"""The figures, one function each; every one gives an SVG with a text that says what it shows.

Colours mean the same everywhere: `snn` what spikes, `ann` what runs on rates, `sample` what was
sampled, `fit` what was fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..operations import ADDITION_PJ, MAC_PJ, Cost
from ..train.history import FittedCurve
from ..train.loop import Epoch
from . import svg
from .gather import Curve, Layer, Samples, Timeline
from .measure import Array, Density, Sweep
from .svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Scale

_MINUTES_FROM = 180.0  # seconds
_LABEL = 130.0  # wide, at most, beside a point
_DOTS = 32  # of the samples behind a curve
_CURVES = 24  # of a history
_UNITS_PER_LINE_CHART = 8


def training(epochs: Sequence[Epoch], best: int, timeline: Timeline) -> str:
    """Validation accuracy over wall-clock time, the modes as bands behind it."""
    unit, name = (60.0, "min") if timeline.ends[-1] >= _MINUTES_FROM else (1.0, "s")
    lines: list[tuple[str, list[tuple[float, float]]]] = []
    for kind in ("snn", "ann"):
        points = [
            (end / unit, value)
            for epoch, end in zip(epochs, timeline.ends, strict=True)
            if (value := getattr(epoch, f"{kind}_accuracy")) is not None
        ]
        if points:
            lines.append((kind, points))
    height, ribbon = 250.0, 9.0
    x = Scale(0, timeline.ends[-1] / unit or 1.0, LEFT, WIDTH - 104)
    values = [value for _, points in lines for _, value in points] or [0.0, 100.0]
    y = Scale(*_up_to_100(*svg.around(values, 0.5)), height - BOTTOM - ribbon, TOP)
    base = Scale(y.low, y.high, height - BOTTOM, TOP)
    parts = [_bands(timeline, unit, x, y, base)]
    parts.append(
        svg.axes(x, base, f"training time ({name})", "validation accuracy (%)", y_ticks=[])
    )
    parts += [_level(y, value, x) for value in y.ticks()]
    ends = []
    for kind, points in lines:
        drawn = [(x(at), y(value)) for at, value in points]
        parts += [svg.line(drawn, kind), svg.dots(drawn[-1:], kind, 3)]
        ends.append((drawn[-1][1], f"{kind.upper()} {points[-1][1]:.2f} %", kind))
    if 0 <= best < len(timeline.ends):
        kept = f"kept: epoch {best + 1}"
        parts.append(svg.upright(x, y, timeline.ends[best] / unit, kept))
    parts.append(svg.labels(ends, x.end + 6))
    said = "; ".join(
        f"{kind.upper()} from {points[0][1]:.1f} to {points[-1][1]:.1f} %" for kind, points in lines
    )
    alt = (
        f"Validation accuracy over {timeline.ends[-1] / unit:.1f} {name} of training: "
        f"{said or 'none measured'}. Bands show which mode ran."
    )
    return svg.document(height, alt, parts)


def transfer_curve(layer: Layer, time_steps: int) -> str:
    """What the neurons of a unit do, what was sampled of them, and the curve fitted to that."""
    height = 250.0
    low, high = _view(layer)
    x = Scale(low, high, LEFT, WIDTH - RIGHT)
    y = Scale(-0.06, 1.06, height - BOTTOM, TOP)
    parts = [svg.axes(x, y, "mean input", "firing rate (spikes a step)", y_ticks=_QUARTERS)]
    if layer.density is not None:
        parts.append(_density(layer.density, x, y))
    if layer.samples is not None:
        parts.append(_sampled(layer.samples, x, y))
    if layer.curve is not None:
        parts.append(svg.line(_drawn(layer.curve, x, y), "ann"))
    alt = f"{layer.block}: firing rate over mean input at {_steps(time_steps)}; " + (
        "no curve was fitted."
        if layer.curve is None
        else f"the curve rises from {layer.curve.values[0]:.2f} to {layer.curve.values[-1]:.2f} "
        f"between the inputs {layer.curve.inputs[0]:.2f} and {layer.curve.inputs[-1]:.2f}."
    )
    return svg.document(height, alt, parts)


def curve_history(layer: Layer) -> str:
    """The curves of a unit over the epochs, older ones fainter."""
    height = 250.0
    kept = svg.thinned(layer.history, _CURVES)
    curves = [Curve(c.origin, c.width, np.asarray(c.values)) for c in kept]
    x = Scale(*_view(layer), LEFT, WIDTH - RIGHT)
    y = Scale(-0.06, 1.06, height - BOTTOM, TOP)
    parts = [svg.axes(x, y, "mean input", "fitted rate (spikes a step)", y_ticks=_QUARTERS)]
    for k, curve in enumerate(curves):
        shade = 3 + round(4 * k / max(len(curves) - 1, 1))
        kind = "fit last" if k == len(curves) - 1 else f"fit level{shade}"
        parts.append(svg.line(_drawn(curve, x, y), kind))
    first, last = kept[0].epoch + 1, kept[-1].epoch + 1
    rates = [f"{curve.values[-1]:.2f}" for curve in (kept[0], kept[-1])]
    if last > first:
        told = f"epoch {first}, faint, to {last}, bold"
        alt = (
            f"in {len(layer.history)} epochs from {first} to {last}; the rate at the last knot "
            f"went from {rates[0]} to {rates[1]}"
        )
    else:
        told = f"epoch {first}"
        alt = f"in {told}; the rate at the last knot is {rates[0]}"
    parts.append(svg.text(x.end, y(0.06), told, "label fit", "end"))
    return svg.document(height, f"{layer.block}: its curve as fitted {alt}.", parts)


def event_rates(layers: Sequence[Layer]) -> str:
    """Spikes a neuron and step of every unit, as sampled over the epochs."""
    shown = [layer for layer in layers if layer.history][:_UNITS_PER_LINE_CHART]
    last = max(curve.epoch for layer in shown for curve in layer.history) + 1
    top = max(curve.event_rate for layer in shown for curve in layer.history)
    height = 230.0
    x = Scale(0, max(last, 1), LEFT, WIDTH - 112)
    y = Scale(0, svg.around([0, top], 0.01)[1], height - BOTTOM, TOP)
    whole = [tick for tick in x.ticks() if tick == round(tick)]
    parts = [svg.axes(x, y, "epoch", "event rate (spikes a neuron and step)", x_ticks=whole)]
    ends = []
    for number, layer in enumerate(shown):
        points = [(x(c.epoch + 1), y(c.event_rate)) for c in layer.history]
        kind = f"unit{number}"
        parts += [svg.line(points, kind), svg.dots(points[-1:], kind, 3)]
        name = layer.block
        ends.append(
            (points[-1][1], f"{number + 1} {name} {layer.history[-1].event_rate:.3f}", kind)
        )
    parts.append(svg.labels(ends, x.end + 6))
    alt = "Event rate over the epochs: " + "; ".join(
        f"{layer.block} from {_rate(layer.history, 0)} to {_rate(layer.history, -1)}"
        for layer in shown
    )
    return svg.document(height, f"{alt}.", parts)


def over_time_steps(sweep: Sweep, trained: int) -> str:
    """Accuracy of the SNN after 1, 2, ... time steps, beside the ANN's."""
    height, steps, ann = 240.0, len(sweep.accuracy), sweep.ann
    x = Scale(1, max(steps, 2), LEFT, WIDTH - RIGHT)
    low, high = svg.around([*sweep.accuracy, *([] if ann is None else [ann])], 1.0)
    y = Scale(*_up_to_100(low, high), height - BOTTOM, TOP)
    whole = [1.0, *(t for t in x.ticks(8) if t == round(t) and t > 1)]
    parts = [svg.axes(x, y, "time steps T", "test accuracy (%)", x_ticks=whole)]
    parts.append(svg.upright(x, y, trained, f"trained at T = {trained}"))
    if ann is not None:
        parts.append(svg.line([(x.start, y(ann)), (x.end, y(ann))], "ann dashed"))
    points = [(x(t + 1), y(value)) for t, value in enumerate(sweep.accuracy)]
    parts.append(svg.line(points, "snn"))
    if steps <= 64:
        parts.append(svg.dots(points, "snn"))
    value = sweep.accuracy[trained - 1]
    told = [(f"SNN {value:.1f} %", "snn")]
    if ann is not None:
        told.append((f"ANN {ann:.1f} %, dashed", "ann"))
    at, side = (x(trained), 1) if x(trained) + _LABEL < WIDTH else (x(trained), -1)
    places, drawn = np.array(points).T
    beside = np.interp(np.linspace(at, at + side * _LABEL, 16), places, drawn)
    lines = [(beside.min(), beside.max()), *([] if ann is None else [(y(ann), y(ann))])]
    place = _between(lines, y.end, y.start)
    parts.append(
        svg.labels(
            [(place + 14 * number, *what) for number, what in enumerate(told)],
            at + 6 * side,
            "start" if side > 0 else "end",
        )
    )
    said = ", ".join(
        f"{sweep.accuracy[t - 1]:.1f} % after {_steps(t)}" for t in sorted({1, trained, steps})
    )
    alt = f"Accuracy of the SNN: {said}" + (
        f"; the ANN has {ann:.1f} %." if ann is not None else "."
    )
    return svg.document(height, alt, parts)


def confusion(counts: Array) -> str:
    """How many images of each class the SNN took for each; rows are the right classes."""
    classes = len(counts)
    side, left, top = 34.0, 44.0, 40.0
    wrong = counts - np.diag(np.diag(counts))
    share = np.sqrt(wrong / max(wrong.max(), 1))
    right = np.diag(np.diag(counts) / np.maximum(counts.sum(1), 1))

    def box(column: int, row: int) -> svg.Box:
        return left + side * column + 1, top + side * row + 1, side - 2, side - 2

    parts = [
        svg.cells(0.35 * right.T, box, "cell plain"),
        svg.cells(share.T, box, "cell snn"),
        svg.text(left, 14, "the SNN says", "name"),
        svg.text(2, top - 8, "is", "name"),
    ]
    for k in range(classes):
        middle = left + side * (k + 0.5)
        parts.append(svg.text(middle, top - 8, str(k), "tick", "middle"))
        parts.append(svg.text(left - 10, top + side * (k + 0.5) + 4, str(k), "tick", "end"))
    for row, column in np.argwhere(counts > 0):
        level = 0 if row == column else svg.level(share[row, column])
        parts.append(
            svg.text(
                left + side * (column + 0.5),
                top + side * (row + 0.5) + 4,
                str(counts[row, column]),
                f"count on{level}",
                "middle",
            )
        )
    total, errors = int(counts.sum()), int(wrong.sum())
    alt = f"Confusion matrix: {errors} errors in {total} images"
    if errors:
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        alt += f"; most often, {wrong.max()} times, a {row} is taken for a {column}"
    return svg.document(top + side * classes + 4, f"{alt}.", parts)


def operations(cost: Cost) -> str:
    """The energy of the arithmetic of one inference, as an SNN and as an ANN, in nJ."""
    rows = {
        "snn": {
            "additions": ADDITION_PJ * cost.synaptic_operations,
            "updates": MAC_PJ * cost.neuron_updates,
            "first layer": MAC_PJ * cost.macs,
        },
        "ann": {"multiply-adds": cost.ann_energy},
    }
    totals = {kind: sum(row.values()) for kind, row in rows.items()}
    height = 158.0
    x = Scale(0, max(totals.values()) or 1.0, 2, WIDTH - RIGHT)
    parts = [svg.text(2, 14, "energy of the arithmetic, an image", "name")]
    for number, (kind, row) in enumerate(rows.items()):
        top, start = 42 + 66 * number, 0.0
        total = f"{kind.upper()} {totals[kind] / 1000:,.1f} nJ"
        parts.append(svg.text(2, top - 6, total, f"label {kind}"))
        for shade, energy in zip((8, 5, 3), row.values(), strict=False):
            box = (x(start), float(top), x(start + energy) - x(start), 22.0)
            parts.append(svg.boxes([box], f"cell {kind} level{shade}"))
            start += energy
        told = ", ".join(f"{name} {energy / 1000:,.1f}" for name, energy in row.items())
        parts.append(svg.text(2, top + 37, told, "note"))
    alt = (
        f"Energy of the arithmetic: SNN {totals['snn'] / 1000:,.1f} nJ, "
        f"ANN {totals['ann'] / 1000:,.1f} nJ an image."
    )
    return svg.document(height, alt, parts)


_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _between(lines: Sequence[tuple[float, float]], top: float, bottom: float) -> float:
    """Where two labels begin: below all lines, or in the widest gap where there is no room.

    lines: from where to where each goes, downwards. top, bottom: of the plot.
    """
    gaps = []
    for start, end in sorted(lines):
        gaps.append((top, start))
        top = max(top, end)
    gaps.append((top, bottom))
    if bottom - top < 40:
        top, bottom = max(gaps, key=lambda gap: gap[1] - gap[0])
    return min(top + 18, (top + bottom) / 2 - 7)


def _up_to_100(low: float, high: float) -> tuple[float, float]:
    return max(low, 0.0), min(high, 100.0)


def _bands(timeline: Timeline, unit: float, x: Scale, y: Scale, base: Scale) -> str:
    """What ran when: faint behind the plot, strong in a ribbon below it."""
    parts = []
    for mode in dict.fromkeys(span.mode for span in timeline.spans):
        places = _merged(
            [(x(s.start / unit), x(s.end / unit)) for s in timeline.spans if s.mode == mode]
        )
        for kind, top, bottom in (("band", y.end, y.start), ("ribbon", y.start, base.start)):
            rectangles = [(start, top, end - start, bottom - top) for start, end in places]
            parts.append(svg.boxes(rectangles, f"{kind} {mode}"))
    return "".join(parts)


def _level(y: Scale, value: float, x: Scale) -> str:
    tick = svg.text(x.start - 6, y(value) + 4, svg.plain(value), "tick", "end")
    return svg.line([(x.start, y(value)), (x.end, y(value))], "grid") + tick


def _merged(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches of the drawing, those that meet within a tenth of a unit as one."""
    merged: list[tuple[float, float]] = []
    for start, end in stretches:
        if merged and start - merged[-1][1] < 0.1:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    # So that a short fit is still seen.
    return [(start, max(end, start + 0.6)) for start, end in merged]


def _steps(count: int) -> str:
    return f"{count} time step{'' if count == 1 else 's'}"


def _rate(history: Sequence[FittedCurve], place: int) -> str:
    return f"{history[place].event_rate:.3f}"


def _view(layer: Layer) -> tuple[float, float]:
    """The mean inputs that a curve's figure shows."""
    if layer.density is not None:
        return layer.density.low, layer.density.high
    if layer.curve is not None:
        low, high = layer.curve.inputs[0], layer.curve.inputs[-1]
        return low - 0.1 * (high - low), high + 0.1 * (high - low)
    return 0.0, 1.0


def _drawn(curve: Curve, x: Scale, y: Scale) -> list[tuple[float, float]]:
    """The curve's line across the whole view: it is constant beyond its knots."""
    inputs = [x.low, *(z for z in curve.inputs if x.low < z < x.high), x.high]
    rates = np.interp(inputs, curve.inputs, curve.values)
    return [(x(z), y(rate)) for z, rate in zip(inputs, rates, strict=True)]


def _density(density: Density, x: Scale, y: Scale) -> str:
    columns, rows = density.counts.shape
    most = max(int(density.counts.max()), 1)
    shade = np.log1p(density.counts) / np.log1p(most)
    wide = (x.end - x.start) / columns
    tall = min((y.start - y.end) / rows, 12.0) * 0.9

    def box(column: int, row: int) -> svg.Box:
        return x.start + wide * column, y(row / (rows - 1)) - tall / 2, wide, tall

    return svg.cells(shade, box, "cell snn")


def _sampled(samples: Samples, x: Scale, y: Scale) -> str:
    """The samples, gathered into a few dots; the more pairs, the larger."""
    place = ((samples.inputs - x.low) / (x.high - x.low) * _DOTS).astype(int)
    inside = (samples.inputs >= x.low) & (samples.inputs < x.high)
    sums = [
        np.bincount(place[inside], weights[inside], _DOTS)
        for weights in (
            samples.counts,
            samples.counts * samples.inputs,
            samples.counts * samples.rates,
        )
    ]
    counts, inputs, rates = (row[sums[0] > 0] for row in sums)
    if not counts.size:
        return ""
    radius = 1.4 + 2.4 * np.sqrt(counts / counts.max())
    return "".join(
        svg.dots([(x(z / n), y(a / n))], "sample", float(r))
        for n, z, a, r in zip(counts, inputs, rates, radius, strict=True)
    )
