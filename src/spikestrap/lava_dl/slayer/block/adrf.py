"""Blocks of adaptive RF neurons for direct training, with complex float weights.

>>> import torch
>>> neuron = dict(threshold=1.0, period=8.0, decay=0.1, threshold_step=0.5)
>>> Dense(neuron, 784, 10)(torch.rand(8, 784, 16)).shape               # (N, C, T)
torch.Size([8, 10, 16])
"""

from ...bind import RESONATOR, bind
from ...families import ADRF
from ...missing import missing_complex_blocks

__all__ = ["Average", "Conv", "Dense", "Flatten", "Input"]

Input, Dense, Conv, Flatten, Average = bind(ADRF, __name__, direct=True, surfaces=RESONATOR)

__getattr__ = missing_complex_blocks(__name__)
