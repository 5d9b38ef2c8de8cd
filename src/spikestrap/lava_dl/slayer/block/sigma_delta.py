"""Blocks of sigma-delta neurons for direct training, with float weights.

>>> import torch
>>> neuron = dict(threshold=0.1, activation=torch.relu)
>>> Dense(neuron, 784, 10)(torch.rand(8, 784, 16)).shape               # (N, C, T)
torch.Size([8, 10, 16])
"""

from ...bind import SIGMA_DELTA as _SURFACES
from ...bind import bind
from ...families import SIGMA_DELTA
from ...missing import missing_blocks

__all__ = ["Average", "Conv", "Dense", "Flatten", "Input", "Output", "Pool"]

Input, Dense, Conv, Pool, Flatten, Average, Output = bind(
    SIGMA_DELTA, __name__, direct=True, surfaces=_SURFACES
)

__getattr__ = missing_blocks(__name__, ("ConvT",))
