"""Blocks of CUBA neurons, given as a dict of `neuron.CUBA` parameters.

>>> import torch, spikestrap as ss
>>> block = ss.block.cuba.Dense(dict(threshold=1.0, voltage_decay=0.1), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import CUBA
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(CUBA, __name__)
