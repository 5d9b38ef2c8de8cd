"""Blocks of CUBA neurons for direct training, on the chip's numbers.

>>> import torch
>>> neuron = dict(threshold=1.25, current_decay=0.25, voltage_decay=0.03)
>>> Dense(neuron, 784, 10)(torch.rand(8, 784, 16)).shape               # (N, C, T)
torch.Size([8, 10, 16])
"""

from ...bind import DIRECT, bind
from ...families import CUBA
from ...missing import missing_blocks

__all__ = ["Affine", "Average", "Conv", "Dense", "Flatten", "Input", "Pool", "Recurrent"]

Input, Dense, Conv, Pool, Flatten, Affine, Average, Recurrent = bind(
    CUBA, __name__, direct=True, surfaces=DIRECT
)

__getattr__ = missing_blocks(
    __name__, ("KWTA",), ConvT="a chip has none; spikestrap.block.cuba.ConvT is float, time first"
)
