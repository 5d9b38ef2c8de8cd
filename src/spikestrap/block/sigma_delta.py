"""Blocks of sigma-delta neurons, given as a dict of `neuron.SigmaDelta` parameters.

A network of them is an ordinary one that sends changes: `Input` (a `neuron.Delta`) turns
values into changes, each block sums up what it gets and sends the change of its activation.
They are trained directly, in Mode.SNN. A constant would be summed up at every step, so there is
no synapse's bias: it is the neuron's (`bias=...` in the dict), and a norm (`norm=...`) is that of
the sums; see `NormedSums`.
`Affine` reads the mean of the changes over time: the last value sent, divided by T.

>>> import torch, spikestrap as ss
>>> block = ss.block.sigma_delta.Dense(dict(threshold=0.1, activation="relu"), 784, 10)
>>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
torch.Size([4, 8, 10])
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from torch import Tensor

from ..errors import SpikestrapError
from ..kernel.reference import State
from ..neuron import Delta, Neuron, SigmaDelta
from ..neuron.parameter import per_channel
from ..norm import Norm
from .base import Affine as PlainAffine
from .base import Conv as PlainConv
from .base import ConvT as PlainConvT
from .base import Dense as PlainDense
from .base import Input as PlainInput
from .base import Pool as PlainPool
from .bind import bind


class NormedSums(Neuron):
    r"""A sigma-delta neuron with a norm of what it summed up, before the activation.

    .. math::
        a[t] = f(\mathrm{norm}(\sigma[t]) + b)

    (lava-dl, slayer.neuron.sigma_delta.) A norm is a scale and a shift, so the neuron gets the
    changes times the scale, and its sum starts at the shift. The statistics are those of the
    sums' means over time.

    >>> import torch, spikestrap as ss
    >>> normed = NormedSums(SigmaDelta(threshold=0.1, activation="identity"), ss.norm.BatchNorm(3))
    >>> sums = normed(torch.rand(4, 8, 3)).cumsum(0)                # what receivers sum up
    >>> bool((sums.mean((0, 1)).abs() < 0.1).all())
    True
    """

    not_bootstrappable = SigmaDelta.not_bootstrappable

    def __init__(self, neuron: SigmaDelta, norm: Norm) -> None:
        super().__init__()
        self.neuron, self.norm = neuron, norm

    @property
    def threshold(self) -> Tensor:
        """That of the neuron."""
        return self.neuron.threshold

    def init_state(self, z: Tensor) -> State:
        """That of the neuron, with the shift of evaluation for its sum."""
        return self._start(z, self.norm.folded()[1])

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equation above, by the running statistics."""
        return self.neuron.step(z * per_channel(self.norm.folded()[0], z), state)

    def forward(
        self,
        z: Tensor,
        state: State | None = None,
        *,
        time_steps: int | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, State]:
        """As `Neuron.forward`; in training by the batch's statistics, for which z is all of time.

        Raises SpikestrapError for a state in training.
        """
        time_steps = self._check(z, time_steps)
        if not self.training:
            scale, shift = self.norm.folded()
        elif state is None:
            sums = z.expand(time_steps, *z.shape[1:]).cumsum(0)
            scale, shift = self.norm.of_batch(self.norm.batch_mean(sums))
        else:
            raise SpikestrapError(
                f"{type(self.norm).__name__}: training takes its statistics over all steps, "
                "expected no state to go on from; call eval() first"
            )
        changes = (z * per_channel(scale, z[0])).to(z.dtype)
        state = self._start(changes[0], shift) if state is None else state
        return self.neuron(changes, state, time_steps=time_steps, return_state=return_state)

    def _start(self, z: Tensor, shift: Tensor) -> State:
        total, sent = self.neuron.init_state(z)
        return total + per_channel(shift, z), sent


def _with_sums(block: Any) -> Any:
    """The block, its norm that of the sums; refusing a bias, which would add up at each step."""
    init = block.__init__

    @wraps(init)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        if getattr(getattr(self.synapse, "layer", None), "bias", None) is not None:
            raise SpikestrapError(
                f"{block.__name__}: bias would be summed up by the sigma-delta neuron at "
                "every step; expected none, or the neuron's own bias"
            )
        if self.norm is not None:
            self.unit.neuron = NormedSums(self.unit.neuron, self.norm)
            self.norm = None

    block.__init__ = __init__
    return block


(Input,) = bind(Delta, __name__, (PlainInput,))
Dense, Conv, ConvT, Pool = map(
    _with_sums, bind(SigmaDelta, __name__, (PlainDense, PlainConv, PlainConvT, PlainPool))
)
(Affine,) = bind(SigmaDelta, __name__, (PlainAffine,))
