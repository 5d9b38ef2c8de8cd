"""The curves as they were fitted over a training: a few numbers a fit, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from ..ann_sampler import AnnSampler
from ..unit import units_of

MOST_EPOCHS = 64  # that are kept: what a training leaves does not grow with its length


@dataclass(frozen=True)
class FittedCurve:
    """A unit's curve as it was at the end of an epoch that fitted it.

    epoch: from 0. unit: its path in the network. fits: how often it had been fitted by then.
    origin, width, values: the curve's knots, rate values[i] at the mean input origin + i * width;
    of several curves (one a channel) the mean. event_rate: spikes a neuron and time step, in the
    samples. residual: root mean square distance of the samples from the curve, the largest of any
    channel.
    """

    epoch: int
    unit: str
    fits: int
    origin: float
    width: float
    values: list[float]
    event_rate: float
    residual: float


def record_curves(curves: list[FittedCurve], net: nn.Module, epoch: int) -> None:
    """At the end of an epoch: add the curves that were fitted since the last in the list.

    Where there are more epochs than `MOST_EPOCHS`, the one goes whose neighbours are closest; the
    first and the last stay.

    >>> import torch, spikestrap as ss
    >>> neuron = dict(threshold=1.0)
    >>> net = ss.Network(ss.block.cuba.Input(neuron), ss.block.cuba.Affine(neuron, 3, 2),
    ...     time_steps=4)
    >>> curves = []
    >>> for mode in (ss.Mode.SAMPLE, ss.Mode.FIT):
    ...     _ = net(2 * torch.rand(50, 3), mode)
    >>> record_curves(curves, net, epoch=0)
    >>> record_curves(curves, net, epoch=1)                 # nothing was fitted since
    >>> [(curve.epoch, curve.unit, len(curve.values)) for curve in curves]
    [(0, 'blocks.0.unit', 65)]
    """
    known = {curve.unit: curve.fits for curve in curves}
    for name, unit in units_of(net):
        if int(unit.sampler.fitted) > known.get(name, 0):
            curves.append(_read(epoch, name, unit.sampler))
    epochs = list(dict.fromkeys(curve.epoch for curve in curves))
    if len(epochs) > MOST_EPOCHS:
        crowded = _most_crowded(epochs)
        curves[:] = [curve for curve in curves if curve.epoch != crowded]


def _most_crowded(epochs: Sequence[int]) -> int:
    room = [after - before for before, after in zip(epochs, epochs[2:], strict=False)]
    return epochs[1 + room.index(min(room))]


def _read(epoch: int, name: str, sampler: AnnSampler) -> FittedCurve:
    count, _, spikes, _ = sampler.statistics.pairs.sum((0, 2)).tolist()
    origin, width, values = mean_curve(sampler)
    return FittedCurve(
        epoch,
        name,
        int(sampler.fitted),
        origin,
        width,
        [round(float(value), 4) for value in values],
        spikes / count if count else 0.0,
        float(sampler.residual.max()),
    )


def mean_curve(sampler: AnnSampler) -> tuple[float, float, np.ndarray]:
    """Origin, width and values (cells + 1,) of a sampler's curve; of several, of their mean."""
    origins = sampler.origin.double().cpu().numpy()
    widths = sampler.width.double().cpu().numpy()
    values = sampler.values.double().cpu().numpy()
    if len(values) == 1:
        return float(origins[0]), float(widths[0]), values[0]
    cells = values.shape[1] - 1
    low, high = origins.min(), (origins + cells * widths).max()
    at = np.linspace(low, high, cells + 1)
    knots = origins[:, None] + widths[:, None] * np.arange(cells + 1)
    mean = np.mean([np.interp(at, x, y) for x, y in zip(knots, values, strict=True)], axis=0)
    return float(low), float((high - low) / cells), mean
