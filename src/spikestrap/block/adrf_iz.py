"""Blocks of AdRFIzhikevich neurons, given as a dict of `neuron.AdRFIzhikevich` parameters.

`Dense`, `Conv` and `ConvT` have real weights and can be bootstrapped; their `Complex`
counterparts have complex ones, as in lava-dl, and are trained directly.

>>> import torch, spikestrap as ss
>>> neuron = dict(threshold=1.0, threshold_step=0.5, period=8.0, decay=0.1)
>>> block = ss.block.adrf_iz.Dense(neuron, 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import AdRFIzhikevich
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
) = bind(AdRFIzhikevich, __name__, (*BOUND, *COMPLEX))
