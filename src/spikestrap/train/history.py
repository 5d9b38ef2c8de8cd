"""The curves as they were fitted over a training: a few numbers a fit, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from ..ann_sampler import AnnSampler
from ..unit import units_of

MOST_FITS = 64  # of one unit that are kept: what a training leaves does not grow with its length


@dataclass(frozen=True)
class FittedCurve:
    """A unit's curve as it was at the end of an epoch that fitted it.

    epoch: from 0. unit: its path in the network. origin, width, values: the curve's knots, rate
    values[i] at the mean input origin + i * width; of several curves (one a channel) the mean.
    event_rate: spikes a neuron and time step, in the samples. residual: root mean square distance
    of the samples from the curve, the largest of any channel.
    """

    epoch: int
    unit: str
    origin: float
    width: float
    values: list[float]
    event_rate: float
    residual: float


class CurveHistory:
    """Keeps what each epoch's fits gave, thinned evenly where there are more than `MOST_FITS`.

    >>> import torch, spikestrap as ss
    >>> neuron = dict(threshold=1.0)
    >>> net = ss.Network(ss.block.cuba.Input(neuron), ss.block.cuba.Affine(neuron, 3, 2),
    ...     time_steps=4)
    >>> history = CurveHistory(net)
    >>> for mode in (ss.Mode.SAMPLE, ss.Mode.FIT):
    ...     _ = net(2 * torch.rand(50, 3), mode)
    >>> history.record(epoch=0)
    >>> history.record(epoch=1)                             # nothing was fitted since
    >>> [(curve.epoch, curve.unit, len(curve.values)) for curve in history.curves]
    [(0, 'blocks.0.unit', 65)]
    """

    def __init__(self, net: nn.Module) -> None:
        self._samplers = {name: unit.sampler for name, unit in units_of(net)}
        self._fits = self._count()
        self._epochs: list[list[FittedCurve]] = []
        self._stride, self._seen = 1, 0

    @property
    def curves(self) -> list[FittedCurve]:
        """All that were kept, by epoch."""
        return [curve for epoch in self._epochs for curve in epoch]

    def record(self, epoch: int) -> None:
        """At the end of an epoch: take down the curves that were fitted in it."""
        fits = self._count()
        new = [name for name, count in fits.items() if count != self._fits[name]]
        self._fits = fits
        if not new:
            return
        if self._seen % self._stride == 0:
            self._epochs.append([_read(epoch, name, self._samplers[name]) for name in new])
        self._seen += 1
        if len(self._epochs) > MOST_FITS:
            self._epochs = self._epochs[::2]
            self._stride *= 2

    def _count(self) -> dict[str, int]:
        return {name: int(sampler.fitted) for name, sampler in self._samplers.items()}


def _read(epoch: int, name: str, sampler: AnnSampler) -> FittedCurve:
    count, _, spikes, _ = sampler.statistics.sum((0, 2)).tolist()
    origin, width, values = mean_curve(sampler)
    return FittedCurve(
        epoch,
        name,
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
