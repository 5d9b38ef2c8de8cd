"""Blocks of ALIF neurons for direct training, with float weights.

>>> import torch
>>> neuron = dict(threshold=1.0, threshold_step=0.5, current_decay=0.25, voltage_decay=0.1,
...     threshold_decay=0.1, refractory_decay=0.5)
>>> Dense(neuron, 784, 10)(torch.rand(8, 784, 16)).shape               # (N, C, T)
torch.Size([8, 10, 16])
"""

from ...bind import DIRECT, bind
from ...families import ALIF
from ...missing import missing_blocks

__all__ = ["Affine", "Average", "Conv", "Dense", "Flatten", "Input", "Pool", "Recurrent"]

Input, Dense, Conv, Pool, Flatten, Affine, Average, Recurrent = bind(
    ALIF, __name__, direct=True, surfaces=DIRECT
)

__getattr__ = missing_blocks(__name__, ("ConvT", "KWTA"))
