"""The way on: the same blocks as a time-first `spikestrap.Network`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..errors import SpikestrapError
from ..network import Network
from .surface import TimeLast


def to_network(layers: Iterable[nn.Module], time_steps: int | None = None) -> Network:
    """A `spikestrap.Network` of the blocks inside those of lava-dl's surface, shared with them.

    layers: such as the script's `net.blocks`. time_steps: as for `Network`, which takes pixels
    in [0, 1] where the script's Input block got them in [-1, 1]. Raises SpikestrapError for a
    layer that does more than the block inside it: a readout of voltages or of running sums.

    >>> import torch, spikestrap as ss
    >>> from spikestrap.lava_dl import bootstrap
    >>> neuron = dict(threshold=1.0, current_decay=1, voltage_decay=0.1)
    >>> layers = nn.ModuleList([
    ...     bootstrap.block.cuba.Input(neuron, weight=1, bias=0),
    ...     bootstrap.block.cuba.Affine(neuron, 64, 10),
    ... ])
    >>> net = to_network(layers, time_steps=8)
    >>> net(torch.rand(2, 64)).shape, net.precision
    (torch.Size([2, 10]), 'loihi')
    """
    found = []
    for number, layer in enumerate(layers):
        if not isinstance(layer, TimeLast):
            raise SpikestrapError(
                f"layer {number}: expected a block of spikestrap.lava_dl, "
                f"got {type(layer).__name__}"
            )
        if layer.adds is not None:
            raise SpikestrapError(
                f"layer {number}: {type(layer).__name__} {layer.adds}, which no block of a Network "
                "does; keep lava-dl's blocks for it"
            )
        found.append(layer.block)
    on_chip = any(getattr(block, "quantizer", None) is not None for block in found)
    return Network(*found, time_steps=time_steps, precision="loihi" if on_chip else "float")
