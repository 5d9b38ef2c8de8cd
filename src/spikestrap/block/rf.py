"""Blocks of RF neurons, given as a dict of `neuron.RF` parameters.

`Dense`, `Conv` and `ConvT` have real weights and can be bootstrapped; their `Complex`
counterparts have complex ones, as in lava-dl, and are trained directly.

>>> import torch, spikestrap as ss
>>> block = ss.block.rf.Dense(dict(threshold=1.0, period=8.0, decay=0.1), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from ..neuron import RF
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
) = bind(RF, __name__, (*BOUND, *COMPLEX))
