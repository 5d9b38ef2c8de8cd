"""The table and the plot of a comparison."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SpikestrapError
from ..files import write_file
from .curves import new_figure
from .run import read_json, run_name

COMPARISON = "compare.json"
COLUMNS = (
    "method", "epochs", "seconds", "seconds to direct's best", "SNN %", "ANN %", "gap, points",
    "event rate",
)  # fmt: skip


def comparison_name(recipe: str, time_steps: int, seed: int) -> str:
    """What the folder of a comparison is called by default."""
    return f"compare-{run_name(recipe, time_steps, seed)}"


def write_comparison(path: Path, result: Mapping[str, Any]) -> None:
    """Write ``compare.json``, ``compare.md`` and ``compare.png`` into a folder.

    Args:
        path: the folder.
        result: what `compare` returns.
    """
    write_file(path / COMPARISON, (json.dumps(result, indent=2) + "\n").encode())
    write_file(path / "compare.png", _figure(result))
    write_file(path / "compare.md", _text(result).encode())


def read_comparison(path: Path) -> dict[str, Any] | None:
    """What `write_comparison` wrote into a folder; None where there is nothing of it.

    Raises:
        SpikestrapError: the folder holds a file of that name that no comparison wrote.
    """
    if not (path / COMPARISON).exists():
        return None
    result = read_json(path / COMPARISON)
    try:
        for method in result["methods"].values():
            over_steps = method["over_time_steps"].items()
            method["over_time_steps"] = {int(steps): accuracy for steps, accuracy in over_steps}
        _text(result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SpikestrapError(
            f"--out: expected a new folder or that of a comparison, got {path}, whose {COMPARISON} "
            "is no comparison's"
        ) from error
    return result


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a method, as text, in the order of `COLUMNS`."""
    return [
        (
            name,
            str(method["epochs"]),
            _number(method["seconds"], 1),
            _number(method["seconds_to_direct"], 1),
            _number(method["snn_accuracy"], 2),
            _number(method["ann_accuracy"], 2),
            _number(method["gap"], 2),
            _number(method["event_rate"], 3),
        )
        for name, method in result["methods"].items()
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [columns, ("---",) * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(result: Mapping[str, Any]) -> str:
    spiking = {name: m for name, m in result["methods"].items() if m["over_time_steps"]}
    steps = sorted({t for method in spiking.values() for t in method["over_time_steps"]})
    by_steps = [
        (name, *(_number(method["over_time_steps"][t], 2) for t in steps))
        for name, method in spiking.items()
    ]
    budget = result["budget"]
    limit = "the same epochs" if budget is None else f"{budget:g} seconds of training each"
    page = f"""# {result["recipe"]}, T = {result["time_steps"]}, ways to train it

Seed {result["seed"]}, {limit}. Accuracies are those of the test part, seconds those of training
without validation. Direct's best is the highest accuracy of direct training on the validation part.

{_table(COLUMNS, rows(result))}

![Accuracy over time and over T](compare.png)
"""
    if spiking:
        page += f"""
The same networks, run for other numbers of time steps than they were trained for:

{_table(("SNN %", *(f"T = {t}" for t in steps)), by_steps)}
"""
    return page


def _figure(result: Mapping[str, Any]) -> bytes:
    figure = new_figure(10.0, 4.0, "the plot of a comparison")
    over_time, over_steps = figure.subplots(1, 2)
    for number, (name, method) in enumerate(result["methods"].items()):
        kind = "ann_accuracy" if method["snn_accuracy"] is None else "snn_accuracy"
        points = [(p["seconds"], p[kind]) for p in method["over_time"] if p[kind] is not None]
        over_time.plot(*zip(*points, strict=True), f"C{number}.-", label=name)
        accuracies = method["over_time_steps"]
        if accuracies:
            over_steps.plot(*zip(*accuracies.items(), strict=True), f"C{number}o-", label=name)
        else:
            over_steps.axhline(method["ann_accuracy"], color=f"C{number}", ls=":", label=name)
    over_time.set_xlabel("seconds of training")
    over_time.set_ylabel("validation accuracy (%)")
    over_steps.set_xlabel(f"time steps (trained for {result['time_steps']})")
    over_steps.set_ylabel("test accuracy (%)")
    over_steps.set_xscale("log", base=2)
    over_time.legend()
    over_steps.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
