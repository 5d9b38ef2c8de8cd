"""Blocks: layers of spiking neurons, and what stands between them.

block.cuba.Dense, block.lif.Conv, ... take a dict of the neuron's parameters; block.Dense,
block.Conv, ... take any `Neuron`. Without a neuron: Flatten, AvgPool, Upsample, Add, Dropout.
"""

from . import cuba, integrate_fire, lif
from .base import Affine, Block, Conv, ConvT, Dense, Input, Pool
from .stateless import Add, AvgPool, Dropout, Flatten, Upsample

__all__ = [
    "Add",
    "Affine",
    "AvgPool",
    "Block",
    "Conv",
    "ConvT",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "Pool",
    "Upsample",
    "cuba",
    "integrate_fire",
    "lif",
]
