"""Blocks of LIF neurons, given as a dict of `neuron.LIF` parameters.

>>> import torch, spikestrap as ss
>>> block = ss.block.lif.Dense(dict(threshold=1.0, voltage_decay=0.1), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import LIF
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(LIF, __name__)
