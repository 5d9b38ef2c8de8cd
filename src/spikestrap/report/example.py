"""The figure of one example: an image, the evidence for its class, the spikes it sets off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import svg
from .gather import Layer
from .measure import Array, Example, Raster
from .svg import WIDTH, Scale

_PER_ROW = 3  # rasters


def example(shown: Example, layers: Sequence[Layer]) -> str:
    """An image, the evidence for its class over time, and the spikes that it set off."""
    size, gap, top, high = 96.0, 14.0, 158.0, 88.0
    parts = [_image(shown.image, 4, 18, size), _evidence(shown, 150, 22, 168, 88)]
    blocks = {layer.unit: layer.block for layer in layers}
    width = (WIDTH - 8 - gap * (_PER_ROW - 1)) / _PER_ROW
    for number, raster in enumerate(shown.rasters):
        row, column = divmod(number, _PER_ROW)
        name = f"{number + 1} {blocks[raster.unit]}"
        left = 4 + column * (width + gap)
        parts.append(_raster(raster, left, top + row * (high + 34), width, high, name))
    rows = math.ceil(len(shown.rasters) / _PER_ROW)
    height = top + rows * (high + 34) - 18
    verdict = (
        f"read as {shown.rival}" if shown.margin > 0 else f"read right, but near {shown.rival}"
    )
    spikes = sum(int(raster.spikes.sum()) for raster in shown.rasters)
    alt = (
        f"Test image {shown.index}: a {shown.true}, {verdict}; its evidence over time, and "
        f"{spikes} spikes in rasters of {len(shown.rasters)} units."
    )
    return svg.document(height, alt, parts)


def _image(image: Array, left: float, top: float, size: float) -> str:
    tall, wide = image.shape
    pixel = size / max(tall, wide)

    def box(column: int, row: int) -> svg.Box:
        return left + pixel * column, top + pixel * row, pixel, pixel

    frame = svg.boxes([(left - 2, top - 2, pixel * wide + 4, pixel * tall + 4)], "paper")
    return frame + svg.cells(np.clip(image.T, 0, 1), box, "cell ink")


def _evidence(shown: Example, left: float, top: float, width: float, height: float) -> str:
    """The logits of the right class and of its rival after each step."""
    steps = len(shown.evidence)
    pair = shown.evidence[:, [shown.true, shown.rival]]
    x = Scale(1, max(steps, 2), left, left + width)
    y = Scale(float(pair.min()), float(pair.max()) + 1e-6, top + height, top)
    parts = [
        svg.text(left - 4, top - 8, "logit after each time step", "name"),
        svg.line([(left, top + height), (left + width, top + height)], "axis"),
        svg.text(left, top + height + 14, "1", "tick", "middle"),
    ]
    if steps > 1:
        parts.append(svg.text(left + width, top + height + 14, str(steps), "tick", "end"))
    ends = []
    for column, (number, kind) in enumerate(((shown.true, "right"), (shown.rival, "rival"))):
        points = [(x(t + 1), y(float(value))) for t, value in enumerate(pair[:, column])]
        parts += [svg.line(points, kind), svg.dots(points[-1:], kind)]
        ends.append((points[-1][1], f"{number} ({kind})", kind))
    parts.append(svg.labels(ends, left + width + 6))
    return "".join(parts)


def _raster(raster: Raster, left: float, top: float, width: float, height: float, name: str) -> str:
    """Neurons upwards, time steps to the right; a mark a spike."""
    neurons, steps = raster.spikes.shape
    wide, tall = width / steps, height / neurons
    marks = [
        (left + wide * (step + 0.12), top + tall * (neuron + 0.1), wide * 0.76, tall * 0.8)
        for neuron, step in np.argwhere(raster.spikes)
    ]
    share = f"{neurons} of {raster.total:,}" if neurons < raster.total else f"all {neurons}"
    return (
        svg.boxes([(left, top, width, height)], "plate")
        + svg.boxes(marks, "spike snn")
        + svg.text(left, top - 5, name, "name")
        + svg.text(left, top + height + 13, share, "tick")
    )
