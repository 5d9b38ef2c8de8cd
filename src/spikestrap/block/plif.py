"""Blocks of PLIF neurons, given as a dict of `neuron.PLIF` parameters.

>>> import torch, spikestrap as ss
>>> block = ss.block.plif.Dense(dict(threshold=1.0), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import PLIF
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(PLIF, __name__)
