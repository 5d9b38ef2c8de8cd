"""SpikingJelly: spikes alone are returned; step_mode "s" takes (N, ...), "m" (T, N, ...)."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import base, encoding, layer, neuron

from .adapter import Adapter, Library
from .layout import STEP, TIME_FIRST


def _layout(node: Any) -> str:
    return STEP if node.step_mode == "s" else TIME_FIRST


def _reset(module: Any) -> None:
    module.reset()


_NODE = Adapter(
    layout=_layout,
    output=lambda node, rates, hidden: rates,
    states=lambda node: tuple(node._memories),
    reset=_reset,
    refuse=lambda node: None,
)

LIBRARY = Library(
    root="spikingjelly",
    neurons=dict.fromkeys(
        (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.QIFNode), _NODE
    ),
    # Version 2 has nodes that do not spike, and are no MemoryModule.
    stateful=(base.MemoryModule, getattr(neuron, "NonSpikingBaseNode", base.MemoryModule)),
    encoders=(encoding.StatelessEncoder, encoding.StatefulEncoder),
    # One mask for all time steps.
    resettable=dict.fromkeys((layer.Dropout, layer.Dropout2d), _reset),
)
