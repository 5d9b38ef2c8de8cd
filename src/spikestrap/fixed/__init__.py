"""Inference in the integers of the chip: bit for bit what Lava's LIF and Loihi compute.

`from_network` turns a network of precision="loihi" into a `fixed.Network` of integer layers,
`to_network` the other way; `.net` files are read into one and written from one.
"""

from .convert import from_network, layer_of
from .layers import MAX_NEURONS, RESETS, Conv, Dense, Flatten, Input, Layer, Neuron
from .network import Network, Result, run_layer
from .restore import to_network

__all__ = [
    "MAX_NEURONS",
    "RESETS",
    "Conv",
    "Dense",
    "Flatten",
    "Input",
    "Layer",
    "Network",
    "Neuron",
    "Result",
    "from_network",
    "layer_of",
    "run_layer",
    "to_network",
]
