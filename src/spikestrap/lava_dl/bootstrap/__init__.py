"""lava.lib.dl.bootstrap: blocks, sampler and schedule.

>>> import torch
>>> import spikestrap.lava_dl.bootstrap as bootstrap
>>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
>>> block = bootstrap.block.cuba.Dense(neuron, 784, 10, weight_norm=True, weight_scale=2)
>>> block(torch.rand(8, 784, 16), mode=bootstrap.Mode.SNN).shape       # (N, C, T)
torch.Size([8, 10, 16])
"""

from ..missing import missing
from . import ann_sampler, block, routine
from .routine import Mode, mode

__all__ = ["Mode", "ann_sampler", "block", "mode", "routine"]

__getattr__ = missing(__name__, {})
