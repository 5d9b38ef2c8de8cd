"""Blocks of AdRF neurons, given as a dict of `neuron.AdRF` parameters.

`Dense`, `Conv` and `ConvT` have real weights and can be bootstrapped; their `Complex`
counterparts have complex ones, as in lava-dl, and are trained directly.

>>> import torch, spikestrap as ss
>>> neuron = dict(threshold=1.0, threshold_step=0.5, period=8.0, decay=0.1)
>>> block = ss.block.adrf.Dense(neuron, 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import AdRF
from .bind import BOUND, COMPLEX, bind

(
    Input,
    Dense,
    Conv,
    ConvT,
    Pool,
    Affine,
    Recurrent,
    KWTA,
    ComplexDense,
    ComplexConv,
    ComplexConvT,
) = bind(AdRF, __name__, (*BOUND, *COMPLEX))
