"""From integer layers back to a network of precision="loihi", to train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import block
from ..block.recurrent import SelfDriven
from ..errors import SpikestrapError, at
from ..network import Network as TorchNetwork
from ..synapse import Synapse
from . import layers
from .convert import from_network
from .network import Network


@torch.no_grad()
def to_network(chip: Network) -> TorchNetwork:
    """The network of precision="loihi" that gives the spikes of integer layers.

    What a `.net` file holds can so be trained on. Weights have 8 bits, delays are fixed, curves
    are not fitted yet. Raises SpikestrapError for what such a network does not have: odd
    weights, a bias behind a current that outlives its step, a current that never decays, a
    readout that is no dense layer.

    >>> neuron = layers.Neuron(threshold=np.array(64))
    >>> chip = Network([layers.Input((2,), neuron), layers.Dense((1,), weight=[[64, -64]])])
    >>> net = to_network(chip)
    >>> net.time_steps = 4
    >>> x = torch.tensor([[1.0, 0.0]])
    >>> net(x).tolist(), chip.run(x, 4).logits.tolist()
    ([[0.5]], [[0.5]])
    """
    shape = chip.layers[0].shape
    # A flat input layer stands for a Flatten before it as well, which leaves vectors alone.
    blocks: list[nn.Module] = [block.Flatten()] if len(shape) == 1 else []
    for number, layer in enumerate(chip.layers):
        with at(f"layer {number} ({type(layer).__name__})"):
            blocks += _blocks(layer, shape, chip.pipelined)
        shape = layer.shape
    held = chip.layers[0].neuron is not None
    # Any T will do to compare layers; a file need not tell the one it was trained for.
    net = TorchNetwork(*blocks, time_steps=1 if held else None, precision="loihi")
    _check(from_network(net, chip.layers[0].shape), chip)
    net.time_steps = chip.time_steps if held else None
    return net


def _blocks(layer: layers.Layer, shape: tuple[int, ...], late: bool) -> list[nn.Module]:
    """What a layer becomes, given the shape before it."""
    made: list[nn.Module] = []
    if isinstance(layer, layers.Flatten) or (isinstance(layer, layers.Dense) and len(shape) == 3):
        made.append(block.Flatten())
    if isinstance(layer, layers.Input) and layer.neuron is not None:
        weight, bias = layer.weight / 32, (layer.bias - layer.weight) / 64
        made.append(block.cuba.Input(_neuron(layer), weight, bias, delay_shift=late))
    elif isinstance(layer, layers.Dense):
        made.append(_dense(layer, late))
    elif isinstance(layer, layers.Conv):
        made.append(_conv(layer, shape, late))
    if layer.delay is not None and np.any(layer.delay):
        steps = np.broadcast_to(layer.delay, layer.shape[0])
        initial, longest = torch.tensor(steps, dtype=torch.float32), int(steps.max())
        made.append(block.Delay(layer.shape[0], longest, initial=initial, learnable=False))
    return made


def _dense(layer: layers.Dense, late: bool) -> nn.Module:
    out, size = layer.weight.shape
    bias = layer.bias is not None
    made: block.Affine | block.Block
    if layer.neuron is None:
        made = block.Affine(None, size, out, bias=bias)
    elif layer.recurrent is None:
        made = block.cuba.Dense(_neuron(layer), size, out, bias=bias, delay_shift=late)
    else:
        recurrent: block.Recurrent = block.cuba.Recurrent(
            _neuron(layer), size, out, bias=bias, delay_shift=late
        )
        driven = recurrent.unit.neuron
        assert isinstance(driven, SelfDriven)
        _load(driven.synapse, layer.recurrent, None)
        made = recurrent
    _load(made.synapse, layer.weight, layer.bias)
    return made


def _conv(layer: layers.Conv, shape: tuple[int, ...], late: bool) -> nn.Module:
    if layer.neuron is None:
        raise SpikestrapError("expected a dense layer as readout")
    kernel = (layer.weight.shape[2], layer.weight.shape[3])
    made = block.cuba.Conv(
        _neuron(layer), shape[0], layer.shape[0], kernel, layer.stride, layer.padding,
        layer.dilation, layer.groups, bias=layer.bias is not None, delay_shift=late,
    )  # fmt: skip
    _load(made.synapse, layer.weight, layer.bias)
    return made


def _load(synapse: nn.Module, weight: np.ndarray, bias: np.ndarray | None) -> None:
    assert isinstance(synapse, Synapse)
    synapse.weight.copy_(torch.from_numpy(weight / 64))
    if bias is not None and synapse.bias is not None:
        synapse.bias.copy_(torch.from_numpy(bias / 64))


def _neuron(layer: layers.Layer) -> dict[str, Any]:
    neuron = layer.neuron
    assert neuron is not None
    return {
        "threshold": _value(neuron.threshold, 64),
        "current_decay": _value(neuron.current_decay, 4096),
        "voltage_decay": _value(neuron.voltage_decay, 4096),
        "v_init": _value(neuron.v_init, 4096),
        "reset": neuron.reset,
    }


def _value(values: np.ndarray, scale: int) -> float | Tensor:
    scaled = values / scale
    return float(scaled) if scaled.ndim == 0 else torch.tensor(scaled, dtype=torch.float32)


def _check(made: Network, chip: Network) -> None:
    """Raises unless the network that was made becomes the layers that it was made of."""
    numbers = [n for n, layer in enumerate(chip.layers) if not isinstance(layer, layers.Flatten)]
    again = [layer for layer in made.layers if not isinstance(layer, layers.Flatten)]
    for number, ours in zip(numbers, again, strict=True):
        theirs, found = chip.layers[number], _values(ours)
        for name, expected in _values(theirs).items():
            if not np.array_equal(found[name], expected):
                raise SpikestrapError(
                    f"layer {number} ({type(theirs).__name__}): its {name} has values that "
                    'precision="loihi" does not train with'
                )


def _values(layer: layers.Layer) -> dict[str, np.ndarray]:
    """All numbers of a layer by name, one a neuron where there may be one for several."""

    def spread(value: object) -> np.ndarray:
        channels = layer.shape[0]
        return np.repeat(np.broadcast_to(np.asarray(value), channels), layer.neurons // channels)

    found = {"delay": spread(0 if layer.delay is None else layer.delay)}
    for name in ("weight", "bias", "recurrent"):
        value = getattr(layer, name, None)
        found[name] = np.zeros(1) if value is None else np.asarray(value)
    for name in ("threshold", "current_decay", "voltage_decay", "v_init"):
        found[name] = spread(getattr(layer.neuron, name, 0))
    return found
