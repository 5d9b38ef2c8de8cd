"""Blocks of ALIF neurons, given as a dict of `neuron.ALIF` parameters.

>>> import torch, spikestrap as ss
>>> block = ss.block.alif.Dense(dict(threshold=1.0, threshold_step=0.5), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import ALIF
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(ALIF, __name__)
