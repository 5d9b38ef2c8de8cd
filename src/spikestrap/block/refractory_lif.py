"""Blocks of RefractoryLIF neurons, given as a dict of `neuron.RefractoryLIF` parameters.

>>> import torch, spikestrap as ss
>>> neuron = dict(threshold=1.0, voltage_decay=0.1, refractory_steps=1)
>>> block = ss.block.refractory_lif.Dense(neuron, 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import RefractoryLIF
from .bind import bind

Input, Dense, Conv, ConvT, Pool, Affine, Recurrent, KWTA = bind(RefractoryLIF, __name__)
