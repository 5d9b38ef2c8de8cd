"""What a report shows, as plain values: the run's records and what its network does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..ann_sampler import AnnSampler
from ..errors import SpikestrapError
from ..train.data import load
from ..train.evaluate import default_device
from ..train.history import FittedCurve, mean_curve
from ..train.run import WEIGHTS, Run, count_parameters, load_run
from ..unit import units_of
from .measure import Density, Measured, measure
from .records import Records, read_records, read_speed_up

ORDER = ("sample", "fit", "snn", "ann", "evaluation")  # of the modes within an epoch


@dataclass(frozen=True)
class Curve:
    """Knots: the rate values[i] at the mean input origin + i * width."""

    origin: float
    width: float
    values: np.ndarray[Any, Any]

    @property
    def inputs(self) -> np.ndarray[Any, Any]:
        """The mean inputs at the knots."""
        return self.origin + self.width * np.arange(len(self.values))


@dataclass(frozen=True)
class Samples:
    """What a curve was fitted to: mean inputs (n,), rates (n,) and how many pairs (n,)."""

    inputs: np.ndarray[Any, Any]
    rates: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """One bootstrap unit.

    unit: its path. block, neuron: the types of its block and neuron. curve, samples: None where
    never fitted or sampled. history: its curves over the epochs. density: None without test
    images.
    """

    unit: str
    block: str
    neuron: str
    curve: Curve | None
    samples: Samples | None
    history: list[FittedCurve]
    density: Density | None = None


@dataclass(frozen=True)
class Span:
    """A stretch of the training in one mode, in seconds from its start."""

    mode: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """A training over wall-clock time.

    spans: what ran when. exact: whether that was recorded, or worked out from how many steps of
    each mode an epoch had. ends: of the epochs, in seconds.
    """

    spans: list[Span]
    exact: bool
    ends: list[float]


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    speed_up: over direct training, where that was compared. measured: None where it was to do
    without test images.
    """

    name: str
    time_steps: int
    seed: int
    precision: str
    parameters: int
    config: Mapping[str, Any]
    records: Records
    speed_up: float | None
    timeline: Timeline
    layers: list[Layer]
    measured: Measured | None


def gather(path: Path, data: Path | None = None, evaluate: bool = True) -> Report:
    """Reads a run and, if asked, runs its network on test images.

    path: the run directory. data: the folder of the data set, None for the one it was trained
    with. Raises SpikestrapError: a file is missing or damaged.
    """
    run = load_run(path)
    records = read_records(path)
    speed_up = read_speed_up(run)
    layers = _layers(run, records)
    measured = None
    if evaluate:
        splits = load(run.recipe.data, data or run.data, run.seed, run.time_steps)
        measured = measure(run.net.to(default_device()), splits)
        layers = [replace(layer, density=measured.densities[layer.unit]) for layer in layers]
    return Report(
        run.recipe.name,
        run.time_steps,
        run.seed,
        run.net.precision,
        count_parameters(run.net),
        run.config,
        records,
        speed_up,
        timeline(records),
        layers,
        measured,
    )


def timeline(records: Records) -> Timeline:
    """What ran when, epoch by epoch, within each in the order of `ORDER`."""
    exact = all(epoch.seconds_by_mode for epoch in records.epochs)
    total: dict[str, int] = {}
    for epoch in records.epochs:
        for mode, steps in epoch.steps.items():
            total[mode] = total.get(mode, 0) + steps
    spans: list[Span] = []
    ends: list[float] = []
    now = 0.0
    for epoch in records.epochs:
        by_mode = epoch.seconds_by_mode or {
            mode: records.result.seconds.get(mode, 0.0) * steps / total[mode]
            for mode, steps in epoch.steps.items()
            if steps
        }
        start = now
        for mode in sorted(by_mode, key=_place):
            spans.append(Span(mode, start, start + by_mode[mode]))
            start += by_mode[mode]
        now = max(start, now + epoch.seconds)
        if not epoch.seconds_by_mode and epoch.snn_accuracy is not None and start < now:
            spans.append(Span("evaluation", start, now))
        ends.append(now)
    return Timeline(spans, exact, ends)


def _place(mode: str) -> int:
    return ORDER.index(mode) if mode in ORDER else len(ORDER)


def _layers(run: Run, records: Records) -> list[Layer]:
    return [
        Layer(
            name,
            type(run.net.get_submodule(name.rpartition(".")[0])).__name__,
            type(unit.neuron).__name__,
            _curve(unit.sampler, f"{run.path / WEIGHTS}: {name}"),
            _samples(unit.sampler),
            [curve for curve in records.curves if curve.unit == name],
        )
        for name, unit in units_of(run.net)
    ]


def _curve(sampler: AnnSampler, where: str) -> Curve | None:
    if not int(sampler.fitted):
        return None
    curve = Curve(*mean_curve(sampler))
    if not (np.isfinite(curve.inputs).all() and curve.width > 0):
        raise SpikestrapError(
            f"{where}: expected a curve on finite mean inputs, got its first at {curve.origin} "
            f"and the others {curve.width} apart"
        )
    return curve


def _samples(sampler: AnnSampler) -> Samples | None:
    count, inputs, rates, _ = sampler.statistics.pairs.sum(0).cpu().numpy()
    seen = count > 0
    if not seen.any():
        return None
    count = count[seen]
    return Samples(inputs[seen] / count, rates[seen] / count, count)
