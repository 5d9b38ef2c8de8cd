"""What a run's network does on test images: its neurons, its errors, its accuracy over T."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..diagnosis import LayerDiagnosis, diagnose
from ..errors import NotFittedError
from ..evaluating import evaluating
from ..network import Network
from ..operations import Cost, cost
from ..routine import Mode
from ..train.data import Arrays, Splits, to_input
from ..train.evaluate import accuracy_over_time, device_of, evaluate, logits_over_time
from ..train.history import mean_curve
from ..unit import units_of

Array = np.ndarray[Any, np.dtype[Any]]

# The work is bounded by images times time steps: all of MNIST's test part for T <= 20.
IMAGE_STEPS = 200_000
SWEEP_IMAGE_STEPS = 40_000
DIAGNOSED, COUNTED = 1024, 256
EXAMPLES = 6
RASTER_NEURONS, RASTER_STEPS = 64, 64
_BATCH = 250
_COLUMNS, _ROWS = 48, 32  # of a density, at most
_SEED = 0


@dataclass(frozen=True)
class Density:
    """How often a neuron of a unit had that mean input and that rate, on one image.

    counts: (columns, rows). low, high: mean inputs at the outer edges. Row r is centred at the
    rate r / (rows - 1). outside: the share of pairs beyond the edges, which are not counted.
    neurons: of the unit.
    """

    counts: Array
    low: float
    high: float
    outside: float
    neurons: int


@dataclass(frozen=True)
class Sweep:
    """accuracy[t - 1]: of the SNN after t steps, in percent, on so many images.

    ann: of the ANN on the same images; None where it has no curves.
    """

    accuracy: list[float]
    ann: float | None
    images: int


@dataclass(frozen=True)
class Raster:
    """The spikes of some of a unit's neurons on one image: (neurons, steps), out of `total`."""

    unit: str
    spikes: Array
    total: int


@dataclass(frozen=True)
class Example:
    """An image and what the SNN made of it.

    index: in the test part. image: (H, W) in [0, 1]. true, rival: the right class, and the best
    of the others. margin: logit of the rival less that of the right class; > 0 is an error.
    evidence: logits after each step, (T, classes).
    """

    index: int
    image: Array
    true: int
    rival: int
    margin: float
    evidence: Array
    rasters: list[Raster]


@dataclass(frozen=True)
class Measured:
    """All of it. images: how many of the `test_images` the confusion rests on.

    confusion: (classes, classes), rows the right class, columns what the SNN said.
    diagnosed, counted: images behind `densities` and `layers`, and behind `cost`.
    """

    images: int
    test_images: int
    confusion: Array
    densities: dict[str, Density]
    layers: dict[str, LayerDiagnosis]
    diagnosed: int
    sweep: Sweep
    examples: list[Example]
    cost: Cost
    counted: int


def measure(net: Network, splits: Splits) -> Measured:
    """Runs a network on test images; which ones, where not all, is the same every time.

    net: ends in a readout, and is left as it was found. It takes static images, for its T steps
    and, to see more, twice as many; or frames of events, for as many as there are.
    """
    own = net.time_steps
    steps = splits.test.x.shape[1] if own is None else own
    longest = steps if own is None else 2 * steps
    images = _some(splits.test, IMAGE_STEPS // steps)
    swept = _some(splits.test, SWEEP_IMAGE_STEPS // longest).arrays
    try:
        with evaluating(net):
            logits = _logits(net, images.arrays.x)
            few = images.arrays.x[:DIAGNOSED]
            layers = diagnose(net, map(to_input, few.split(_BATCH)), batches=DIAGNOSED)
            return Measured(
                len(images.arrays),
                len(splits.test),
                _confusion(images.arrays.y, logits.argmax(1), splits.classes),
                _densities(net, few),
                {layer.name: layer for layer in layers},
                len(few),
                _sweep(net, swept, longest),
                _examples(net, images, logits, steps),
                cost(net, to_input(images.arrays.x[:COUNTED].to(device_of(net)))),
                min(COUNTED, len(images.arrays)),
            )
    finally:
        net.time_steps = own


@dataclass(frozen=True)
class _Images:
    """Images, and their places in the test part."""

    arrays: Arrays
    places: Tensor = field(repr=False)


def _some(test: Arrays, most: int) -> _Images:
    """At least 50 of the test images, at most so many; the same every time."""
    keep = max(most, 50)
    places = torch.arange(len(test))
    if keep < len(test):
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(_SEED))
        places = order[:keep].sort().values
    return _Images(Arrays(test.x[places], test.y[places]), places)


@torch.no_grad()
def _logits(net: Network, x: Tensor) -> Tensor:
    """Logits (N, classes) as an SNN."""
    device = device_of(net)
    return torch.cat([net(to_input(part.to(device)), Mode.SNN).cpu() for part in x.split(_BATCH)])


def _densities(net: Network, x: Tensor) -> dict[str, Density]:
    seen = {name: _DensityCounter(unit.sampler) for name, unit in units_of(net)}
    with _watching(net, lambda name, z, spikes: seen[name].add(z, spikes)):
        _logits(net, x)
    return {name: counter.result() for name, counter in seen.items()}


@contextmanager
def _watching(net: nn.Module, see: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Within it, every spiking run of a unit is shown: name, z (T or 1, N, ...), spikes."""
    hooks = [
        unit.register_forward_hook(lambda _, args, spikes, name=name: see(name, args[0], spikes))
        for name, unit in units_of(net)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _DensityCounter:
    """Counts the pairs of a unit around its curve, or, without one, those of the first batch."""

    def __init__(self, sampler: Any) -> None:
        self._low = self._high = 0.0
        if int(sampler.fitted):
            origin, width, values = mean_curve(sampler)
            reach = width * (len(values) - 1)
            self._low, self._high = origin - 0.1 * reach, origin + 1.1 * reach
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._pairs = self._neurons = 0

    def add(self, z: Tensor, spikes: Tensor) -> None:
        z, rate = z.float().mean(0), spikes.float().mean(0)
        if not self._pairs:
            self._neurons = rate[0].numel()
            self._rows = min(spikes.shape[0], _ROWS) + 1
            self._counts = torch.zeros(_COLUMNS * self._rows, dtype=torch.int64)
            if self._low == self._high:
                self._low, self._high = z.min().item(), z.max().item() + 1e-6
        column = ((z - self._low) / (self._high - self._low) * _COLUMNS).floor()
        row = (rate * (self._rows - 1)).round()
        inside = (column >= 0) & (column < _COLUMNS)
        cell = (column * self._rows + row)[inside].long()
        self._counts += torch.bincount(cell, minlength=len(self._counts)).cpu()
        self._pairs += rate.numel()

    def result(self) -> Density:
        counts = self._counts.view(_COLUMNS, -1).numpy()
        outside = 1 - counts.sum() / self._pairs
        return Density(counts, self._low, self._high, float(outside), self._neurons)


def _confusion(true: Tensor, said: Tensor, classes: int) -> Array:
    return torch.bincount(true * classes + said, minlength=classes**2).view(classes, -1).numpy()


def _sweep(net: Network, images: Arrays, steps: int) -> Sweep:
    ann = None
    with contextlib.suppress(NotFittedError):
        ann = evaluate(net, images, Mode.ANN)
    return Sweep(accuracy_over_time(net, images, steps), ann, len(images))


@torch.no_grad()
def _examples(net: Network, images: _Images, logits: Tensor, steps: int) -> list[Example]:
    """The images whose right class lost by most, or won by least."""
    true = images.arrays.y
    others = logits.scatter(1, true[:, None], -torch.inf)
    margin = others.max(1).values - logits.gather(1, true[:, None])[:, 0]
    worst = margin.argsort(descending=True, stable=True)[:EXAMPLES]
    x = images.arrays.x[worst]
    seen: dict[str, Tensor] = {}
    with _watching(net, lambda name, z, spikes: seen.update({name: spikes})):
        net(to_input(x.to(device_of(net))), Mode.SNN)
    evidence = logits_over_time(net, x, steps)
    return [
        Example(
            int(images.places[place]),
            _picture(x[i]),
            int(true[place]),
            int(others[place].argmax()),
            float(margin[place]),
            evidence[:, i].numpy(),
            [_raster(name, spikes[:, i]) for name, spikes in seen.items()],
        )
        for i, place in enumerate(worst.tolist())
    ]


def _picture(x: Tensor) -> Array:
    """An image (C, H, W), or the sum of frames (T, C, H, W), as grey values (H, W) in [0, 1]."""
    if x.dtype != torch.uint8:
        return x.mean(0).numpy()
    events = x.float().sum((0, 1))
    return (events / events.max().clamp(min=1)).numpy()


def _raster(name: str, spikes: Tensor) -> Raster:
    """Spikes (T, ...) of one image, of neurons evenly spaced over the unit."""
    flat = spikes[:RASTER_STEPS].flatten(1).cpu()
    total = flat.shape[1]
    kept = np.unique(np.linspace(0, total - 1, min(total, RASTER_NEURONS)).round().astype(int))
    return Raster(name, flat[:, kept].bool().numpy().T, total)
