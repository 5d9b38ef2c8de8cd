"""Blocks: layers of spiking neurons, and what stands between them.

block.cuba.Dense, block.lif.Conv, ... take a dict of the neuron's parameters; block.Dense,
block.Conv, ... take any `Neuron`. Without a neuron: Flatten, AvgPool, Upsample, Add, Dropout.
For direct training alone: Recurrent, KWTA, Delay, ComplexDense, ..., block.sigma_delta.
"""

from . import (
    adrf,
    adrf_iz,
    alif,
    cuba,
    integrate_fire,
    lif,
    noisy_lif,
    plif,
    refractory_lif,
    rf,
    rf_iz,
    sigma_delta,
)
from .base import Affine, Block, Conv, ConvT, Dense, Input, Pool
from .complex import ComplexConv, ComplexConvT, ComplexDense
from .delay import Delay
from .kwta import KWTA
from .recurrent import Recurrent
from .residual import Residual
from .stateless import Add, AvgPool, Dropout, Flatten, Upsample

__all__ = [
    "KWTA",
    "Add",
    "Affine",
    "AvgPool",
    "Block",
    "ComplexConv",
    "ComplexConvT",
    "ComplexDense",
    "Conv",
    "ConvT",
    "Delay",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "Pool",
    "Recurrent",
    "Residual",
    "Upsample",
    "adrf",
    "adrf_iz",
    "alif",
    "cuba",
    "integrate_fire",
    "lif",
    "noisy_lif",
    "plif",
    "refractory_lif",
    "rf",
    "rf_iz",
    "sigma_delta",
]
