"""Blocks of sigma-delta neurons, given as a dict of `neuron.SigmaDelta` parameters.

A network of them is an ordinary one that sends changes: `Input` (a `neuron.Delta`) turns
values into changes, each block sums up what it gets and sends the change of its activation.
They are trained directly, in Mode.SNN. A constant would be summed up at every step, so the
bias is the neuron's (`bias=...` in the dict), and there is neither a synapse's bias nor a norm.
`Affine` reads the mean of the changes over time: the last value sent, divided by T.

>>> import torch, spikestrap as ss
>>> block = ss.block.sigma_delta.Dense(dict(threshold=0.1, activation="relu"), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from functools import wraps
from typing import Any

from ..errors import SpikestrapError
from ..neuron import Delta, SigmaDelta
from .base import Affine as PlainAffine
from .base import Conv as PlainConv
from .base import ConvT as PlainConvT
from .base import Dense as PlainDense
from .base import Input as PlainInput
from .base import Pool as PlainPool
from .bind import bind


def _without_constants(block: Any) -> Any:
    """The block, refusing what would add a constant at each step."""
    init = block.__init__

    @wraps(init)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        layer = getattr(self.synapse, "layer", None)
        for what, there in (("bias", getattr(layer, "bias", None)), ("norm", self.norm)):
            if there is not None:
                raise SpikestrapError(
                    f"{block.__name__}: {what} would be summed up by the sigma-delta neuron at "
                    "every step; expected none, or the neuron's own bias"
                )

    block.__init__ = __init__
    return block


(Input,) = bind(Delta, __name__, (PlainInput,))
Dense, Conv, ConvT, Pool = map(
    _without_constants, bind(SigmaDelta, __name__, (PlainDense, PlainConv, PlainConvT, PlainPool))
)
(Affine,) = bind(SigmaDelta, __name__, (PlainAffine,))
