"""The files of a run that say how it went, checked before they are believed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SpikestrapError
from ..train.compare_report import COMPARISON, comparison_name
from ..train.history import FittedCurve
from ..train.loop import Epoch
from ..train.run import CURVES, HISTORY, RESULT, Run, read_json

_LARGEST = 1e15  # of any number: more is damage
_PERCENT = (0.0, 100.0)


@dataclass(frozen=True)
class Result:
    """The final numbers, on the test part.

    snn_accuracy, ann_accuracy: in percent. event_rate: spikes a neuron and time step.
    seconds: total and by mode.
    """

    snn_accuracy: float
    ann_accuracy: float | None
    event_rate: float
    seconds: dict[str, float]

    @property
    def gap(self) -> float | None:
        """What the ANN has more than the SNN, in percentage points."""
        return None if self.ann_accuracy is None else self.ann_accuracy - self.snn_accuracy


@dataclass(frozen=True)
class Records:
    """What a run's files tell.

    epochs: one record each. best_epoch: the one whose network was kept, from 0; -1 if none.
    curves: as fitted over the epochs; empty for a run that did not record them.
    """

    result: Result
    epochs: list[Epoch]
    best_epoch: int
    curves: list[FittedCurve]


def read_records(path: Path) -> Records:
    """The records of the run in a folder.

    Raises:
        SpikestrapError: a file is missing or is not what a training writes.
    """
    found = _Entry(read_json(path / RESULT), str(path / RESULT))
    seconds = found.numbers("seconds")
    if "total" not in seconds:
        raise found.error("seconds", "a total among them")
    result = Result(
        found.number("snn_accuracy", *_PERCENT),
        found.number_or_none("ann_accuracy", *_PERCENT),
        found.number("event_rate", 0.0, 1.0),
        seconds,
    )
    history = _Entry(read_json(path / HISTORY), str(path / HISTORY))
    epochs = [_epoch(entry) for entry in history.entries("epochs")]
    if not epochs:
        raise history.error("epochs", "at least one")
    best_epoch = int(history.number("best_epoch", -1, len(epochs) - 1))
    curves: list[FittedCurve] = []
    if (path / CURVES).exists():  # a run of an early version has none
        entry = _Entry(read_json(path / CURVES), str(path / CURVES))
        curves = [_curve(curve) for curve in entry.entries("curves")]
    return Records(result, epochs, best_epoch, curves)


def read_speed_up(run: Run) -> float | None:
    """How many times sooner bootstrap was as accurate as direct training at its best.

    From the comparison in the run's folder, or in the folder beside it that `compare` makes by
    default for the same training; None where there is none of just this training, direct or
    bootstrap was not compared, or bootstrap never was as accurate.
    """
    beside = run.path.resolve().parent / comparison_name(run.recipe.name, run.time_steps, run.seed)
    trained = {
        "recipe": run.recipe.name,
        "time_steps": run.time_steps,
        "batch_size": run.options.batch_size,
        "learning_rate": run.options.learning_rate,
        "precision": run.net.precision,
        "training_precision": run.training_precision,
        "seed": run.seed,
    }
    for folder in (run.path, beside):
        path = folder / COMPARISON
        if not path.exists():
            continue
        found = _Entry(read_json(path), str(path))
        # Comparisons did not always take another one.
        own = {"learning_rate": run.recipe.options.learning_rate, **found.value}
        if {key: own.get(key) for key in trained} != trained:
            continue
        methods = found.entry("methods")
        if not {"direct", "bootstrap"} <= methods.value.keys():
            continue
        direct, bootstrap = methods.entry("direct"), methods.entry("bootstrap")
        if bootstrap.value.get("epochs") != run.options.epochs:
            continue
        late, soon = (
            method.number_or_none("seconds_to_direct", 0.0, _LARGEST)
            for method in (direct, bootstrap)
        )
        return late / soon if late and soon else None
    return None


def _epoch(entry: _Entry) -> Epoch:
    steps = {name: int(count) for name, count in entry.numbers("steps").items()}
    return Epoch(
        int(entry.number("epoch", 0, _LARGEST)),
        entry.number("loss", -_LARGEST, _LARGEST),
        entry.number("learning_rate", 0.0, _LARGEST),
        steps,
        entry.number("seconds", 0.0, _LARGEST),
        entry.number_or_none("snn_accuracy", *_PERCENT),
        entry.number_or_none("ann_accuracy", *_PERCENT),
        entry.numbers("seconds_by_mode") if "seconds_by_mode" in entry.value else {},
    )


def _curve(entry: _Entry) -> FittedCurve:
    values = entry.value.get("values")
    if not isinstance(values, list) or len(values) < 2:
        raise entry.error("values", "at least 2 numbers")
    return FittedCurve(
        int(entry.number("epoch", 0, _LARGEST)),
        entry.text("unit"),
        int(entry.number("fits", 1, _LARGEST)),
        entry.number("origin", -_LARGEST, _LARGEST),
        entry.number("width", 0.0, _LARGEST),
        [entry.checked("values", value, 0.0, 1.0) for value in values],
        entry.number("event_rate", 0.0, 1.0),
        entry.number("residual", 0.0, _LARGEST),
    )


class _Entry:
    """A JSON object, and where it stands."""

    def __init__(self, value: Mapping[str, Any], where: str) -> None:
        self.value, self._where = value, where

    def number(self, key: str, low: float, high: float) -> float:
        return self.checked(key, self.value.get(key), low, high)

    def number_or_none(self, key: str, low: float, high: float) -> float | None:
        return None if self.value.get(key) is None else self.number(key, low, high)

    def checked(self, key: str, value: Any, low: float, high: float) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise self.error(key, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if not isinstance(value, str):
            raise self.error(key, "a text")
        return value

    def numbers(self, key: str) -> dict[str, float]:
        """An object of numbers >= 0."""
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self.error(key, "an object of numbers")
        return {name: self.checked(f"{key}, {name}", n, 0, _LARGEST) for name, n in value.items()}

    def entry(self, key: str) -> _Entry:
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return _Entry(value, f"{self._where}: {key}")

    def entries(self, key: str) -> list[_Entry]:
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.error(key, "a list of objects")
        return [_Entry(entry, f"{self._where}: {key}[{i}]") for i, entry in enumerate(value)]

    def error(self, key: str, expected: str, value: Any = None) -> SpikestrapError:
        got = self.value.get(key) if value is None else value
        shown = json.dumps(got)
        shown = shown if len(shown) <= 60 else f"{shown[:60]} ..."
        return SpikestrapError(f"{self._where}: {key}: expected {expected}, got {shown}")
