"""Blocks of IF neurons, given as a dict of `neuron.IF` parameters.

>>> import torch, spikestrap as ss
>>> block = ss.block.integrate_fire.Dense(dict(threshold=1.0, v_init=0.5), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import IF
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(IF, __name__)
