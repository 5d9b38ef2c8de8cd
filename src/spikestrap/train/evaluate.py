"""Accuracy and event rate of a network."""

from __future__ import annotations

from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn

from ..block import Affine
from ..evaluating import evaluating
from ..network import Network
from ..routine import Mode
from ..timeaxis import valid
from ..unit import units_of
from .data import Arrays, to_input


@torch.no_grad()
def evaluate(net: nn.Module, arrays: Arrays, mode: Mode, batch_size: int = 256) -> float:
    """The share of the images that a network classifies right, in percent.

    Args:
        net: called as ``net(x, mode)``; evaluated in eval mode, and left as it was found.
        arrays: at least one image.
        mode: ``Mode.SNN`` or ``Mode.ANN``.
        batch_size: images at a time.
    """
    device = device_of(net)
    right = 0
    with evaluating(net):
        for x, y in zip(arrays.x.split(batch_size), arrays.y.split(batch_size), strict=True):
            logits = net(to_input(x.to(device)), mode)
            right += int((logits.argmax(1) == y.to(device)).sum())
    return 100 * right / len(arrays)


def accuracy_over_time(
    net: Network, arrays: Arrays, steps: int, batch_size: int = 256
) -> list[float]:
    """The share of the images that the SNN classifies right after 1, 2, ... steps, in percent.

    Args:
        net: see `logits_over_time`; evaluated in eval mode, and left as it was found.
        arrays: at least one image.
        steps: how many.
        batch_size: images at a time.
    """
    right = torch.zeros(steps, dtype=torch.int64)
    with evaluating(net):
        for x, y in zip(arrays.x.split(batch_size), arrays.y.split(batch_size), strict=True):
            right += (logits_over_time(net, x, steps).argmax(2) == y).sum(1)
    return [100 * count / len(arrays) for count in right.tolist()]


@torch.no_grad()
def logits_over_time(net: Network, x: Tensor, steps: int) -> Tensor:
    """Logits (steps, N, classes) after each of so many steps, in one run.

    Nothing runs backwards in time: the first t steps of a long run are the run of t steps, and
    the readout reads the mean of what has arrived. net: ends in a readout. x: images, or at least
    so many frames.
    """
    *_, readout = net.blocks
    assert isinstance(readout, Affine)
    arrived: list[Tensor] = []
    own = net.time_steps
    x = to_input(x.to(device_of(net)))
    if own is None:
        x = x[:steps]
    else:
        net.time_steps = steps
    hook = readout.register_forward_pre_hook(lambda _, args: arrived.append(args[0]))
    try:
        net(x, Mode.SNN)
    finally:
        hook.remove()
        net.time_steps = own
    (spikes,) = arrived
    count = torch.arange(1, steps + 1, device=spikes.device).view(-1, *[1] * (spikes.ndim - 1))
    means = spikes.float().cumsum(0) / count
    logits: Tensor = readout(means.flatten(0, 1))
    return logits.view(*spikes.shape[:2], -1).cpu()


def device_of(net: nn.Module) -> torch.device:
    """Where a network's parameters lie; the CPU for one without parameters."""
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class EventRate:
    """Counts spikes while a network runs as an SNN, within a ``with`` block.

    >>> import spikestrap as ss
    >>> net = ss.Network(ss.block.cuba.Input(dict(threshold=1.0)), time_steps=4)
    >>> with EventRate(net) as rate:
    ...     _ = net(torch.full((1, 3), 1.5), ss.Mode.SNN)
    >>> rate.value
    1.0
    """

    def __init__(self, net: nn.Module) -> None:
        self._units = dict(units_of(net))
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._spikes = dict.fromkeys(self._units, 0)
        self._places = dict.fromkeys(self._units, 0)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """By unit: its spikes, and how many there could have been, neurons times time steps."""
        return {name: (self._spikes[name], self._places[name]) for name in self._units}

    @property
    def value(self) -> float:
        """Spikes a neuron and time step, the mean over all neurons of all units; 0 before any."""
        places = sum(self._places.values())
        return sum(self._spikes.values()) / places if places else 0.0

    def __enter__(self) -> EventRate:
        self._hooks = [
            unit.register_forward_hook(partial(self._count, name))
            for name, unit in self._units.items()
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, name: str, unit: nn.Module, args: tuple[Tensor, ...], spikes: Tensor) -> None:
        # Each unit puts in as many values as it has neurons: the mean is weighted by them.
        spikes = valid(spikes.detach())
        # Of truths, which torch counts much faster than numbers.
        self._spikes[name] += int(spikes.ne(0).count_nonzero())
        self._places[name] += spikes.numel()
