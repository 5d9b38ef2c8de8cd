"""Drawing in SVG: scales, axes, lines, cells. Colours are left to the page's style sheet.

Elements carry a class; `snn`, `ann`, `sample`, `fit` and `evaluation` set the colour that the
others, such as `line` and `band`, paint with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x, y, width, height
WIDTH = 400.0  # of every figure; on a phone that is nearly one pixel a unit
LEFT, RIGHT, TOP, BOTTOM = 46.0, 16.0, 34.0, 40.0
POINTS = 500  # of a line, at most
LEVELS = 8  # shades of a grid of cells
_LINE = 14.0  # height of a line of text


@dataclass(frozen=True)
class Scale:
    """From values, low to high, to places in the drawing, start to end.

    >>> Scale(0, 10, 100, 200)(5)
    150.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the scale."""
        return ticks(self.low, self.high, most)


def upright(x: Scale, y: Scale, value: float, content: str) -> str:
    """A vertical line across the plot, and above it what it marks."""
    at = x(value)
    third = (x.end - x.start) / 3
    anchor = "start" if at < x.start + third else "end" if at > x.end - third else "middle"
    return line([(at, y.start), (at, y.end)], "mark") + text(at, y.end - 5, content, "note", anchor)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round values from low to high.

    >>> ticks(0, 47), ticks(97.2, 99.4, 5)
    ([0.0, 10.0, 20.0, 30.0, 40.0], [97.5, 98.0, 98.5, 99.0])
    """
    step = _round_step((high - low) / most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def around(values: Iterable[float], least: float = 0.0) -> tuple[float, float]:
    """A range with round ends that holds the values, in its middle where they span too little.

    least: what it spans at least.

    >>> around([97.4, 99.1])
    (97.0, 99.5)
    """
    listed = list(values)
    low, high = min(listed), max(listed)
    least = max(least, 1e-6 * max(abs(low), abs(high), 1e-3))  # as exactly as can be written
    missing = max(least - (high - low), 0.0)
    low, high = low - missing / 2, high + missing / 2
    step = _round_step((high - low) / 5)
    return round(math.floor(low / step) * step, 12), round(math.ceil(high / step) * step, 12)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def document(height: float, alt: str, parts: Iterable[str], width: float = WIDTH) -> str:
    """A figure of its own; alt says in words what is to be seen."""
    return (
        f'<svg viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
    )


def number(value: float, digits: int = 1) -> str:
    """A length, without needless digits.

    >>> number(3.0), number(3.14159), number(3.14159, digits=2)
    ('3', '3.1', '3.14')
    """
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text on the baseline y."""
    extra = f' class="{escape(kind)}"' if kind else ""
    extra += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{number(x)}" y="{number(y)}"{extra}>{escape(content)}</text>'


def line(points: Sequence[Point], kind: str) -> str:
    """A line through points in the drawing."""
    path = "L".join(f"{number(x)} {number(y)}" for x, y in thinned(points, POINTS))
    return f'<path class="line {escape(kind)}" d="M{path}"/>'


def dots(points: Iterable[Point], kind: str, radius: float = 2.5) -> str:
    """A dot at each point."""
    start = f'<circle class="dot {escape(kind)}" r="{number(radius)}"'
    return "".join(f'{start} cx="{number(x)}" cy="{number(y)}"/>' for x, y in points)


def boxes(rectangles: Iterable[Box], kind: str) -> str:
    """Rectangles (x, y, width, height) of one kind, as one path."""
    path = "".join(
        # Two digits: neighbours must meet.
        f"M{number(x, 2)} {number(y, 2)}h{number(w, 2)}v{number(h, 2)}h{number(-w, 2)}z"
        for x, y, w, h in rectangles
    )
    return f'<path class="{escape(kind)}" d="{path}"/>' if path else ""


def cells(shade: np.ndarray[Any, Any], box: Callable[[int, int], Box], kind: str) -> str:
    """A grid of cells: shade (columns, rows) in [0, 1], box(column, row) the rectangle of one.

    Cells of shade 0 are left out; the others come in `LEVELS` steps.
    """
    levels = level(shade)
    return "".join(
        boxes(
            (box(int(i), int(j)) for i, j in np.argwhere(levels == k)),
            f"{kind} level{k}",
        )
        for k in range(1, LEVELS + 1)
    )


def level(shade: Any) -> Any:
    """The step, 0 to `LEVELS`, of a shade in [0, 1]; an array of them for an array.

    >>> level(0.0), level(0.01), level(1.0)
    (0, 1, 8)
    """
    steps = np.ceil(np.asarray(shade) * LEVELS).astype(int)
    return steps if steps.ndim else int(steps)


def axes(
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    y_ticks: Sequence[float] | None = None,
) -> str:
    """Grid lines, ticks and what the axes are, units included."""
    parts = []
    for value in y.ticks() if y_ticks is None else y_ticks:
        at = y(value)
        parts.append(line([(x.start, at), (x.end, at)], "grid"))
        parts.append(text(x.start - 6, at + 4, plain(value), "tick", "end"))
    for value in x.ticks() if x_ticks is None else x_ticks:
        at = x(value)
        parts.append(line([(at, y.start), (at, y.start + 4)], "axis"))
        parts.append(text(at, y.start + 16, plain(value), "tick", "middle"))
    parts.append(line([(x.start, y.start), (x.end, y.start)], "axis"))
    parts.append(text((x.start + x.end) / 2, y.start + 33, x_label, "name", "middle"))
    parts.append(text(2, y.end - 22, y_label, "name"))
    return "".join(parts)


def plain(value: float) -> str:
    """A tick's value, without needless digits.

    >>> plain(10.0), plain(0.25), plain(20000.0)
    ('10', '0.25', '20,000')
    """
    return f"{value:,.0f}" if value == round(value) else f"{value:.6g}"


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly spaced, the first and the last included."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def labels(wanted: Sequence[tuple[float, str, str]], x: float, anchor: str = "start") -> str:
    """Texts (y, content, kind) beside the ends of lines, moved apart where they would overlap."""
    places = apart([y for y, _, _ in wanted], _LINE)
    return "".join(
        text(x, y + 4, content, f"label {kind}", anchor)
        for y, (_, content, kind) in zip(places, wanted, strict=True)
    )


def apart(places: Sequence[float], gap: float) -> list[float]:
    """The places, each at least `gap` from the next, the order kept, moved as one where they meet.

    >>> apart([10.0, 12.0, 50.0], 10.0)
    [6.0, 16.0, 50.0]
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _middle(groups[-1], places) - _middle(groups[-2], places) < (
            gap * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = list(places)
    for group in groups:
        start = _middle(group, places) - gap * (len(group) - 1) / 2
        for k, i in enumerate(group):
            moved[i] = start + gap * k
    return moved


def _middle(group: Sequence[int], places: Sequence[float]) -> float:
    return sum(places[i] for i in group) / len(group)
