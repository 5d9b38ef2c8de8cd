"""Blocks of NoisyLIF neurons, given as a dict of `neuron.NoisyLIF` parameters.

>>> import torch, spikestrap as ss
>>> block = ss.block.noisy_lif.Dense(dict(threshold=1.0, voltage_decay=0.1, noise=0.2), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import NoisyLIF
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(NoisyLIF, __name__)
