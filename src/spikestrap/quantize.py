"""Training on what the chip will hold: weights, biases and neurons on Loihi's grids.

The quantizer of a block computes z from rounded weights, with the norm folded into them
first, so that nothing is left to fold or round when the network goes to the chip.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .choices import check_choice
from .errors import SpikestrapError
from .grid import BIAS, weight_grid
from .norm import Norm, fold
from .precision import whole, without_autocast
from .synapse import ElementWise, Pooling, Synapse, more_than_weights
from .timeaxis import has_time, time_mean

PRECISIONS = ("float", "loihi")


class Quantizer:
    """The synapse and norm of one block, on the grids of Loihi.

    bits: of a weight. gain: multiplies the weights before they are rounded; what a pooling
    without a neuron hands on to the synapse behind it.

    >>> import torch
    >>> from spikestrap.synapse import linear
    >>> synapse = linear(1, 1, bias=False, weight_scale=1.0, weight_norm=False)
    >>> _ = torch.nn.init.constant_(synapse.layer.weight, 0.3)
    >>> Quantizer()(synapse, None, torch.ones(1, 1)).item() * 64        # 19.2, to even
    20.0
    """

    def __init__(self, bits: int = 8) -> None:
        weight_grid(nn.Parameter(), bits)
        self.bits = bits
        self.gain = 1.0

    def __call__(self, synapse: nn.Module, norm: Norm | None, x: Tensor) -> Tensor:
        """z (T, N, ...) or (N, ...) of the input x, in whole 1/64 for spikes x; never in halves."""
        # Half precision would round the sums that the chip takes exactly.
        with without_autocast(x.device.type):
            return self._weighted(synapse, norm, whole(x))

    def _weighted(self, synapse: nn.Module, norm: Norm | None, x: Tensor) -> Tensor:
        if isinstance(synapse, ElementWise):
            return encode(x, *self.element_wise(synapse))
        if isinstance(synapse, Pooling):
            return synapse.sums(x) * self.pooling(synapse).to(x)
        assert isinstance(synapse, Synapse)
        if norm is None or not norm.training:
            return synapse.run(x, *self.weights(synapse, norm))
        weight, bias = _unrounded(synapse)
        # As the norm alone would see it: the statistics are those of unrounded weights.
        mean = synapse.run((time_mean(x) if has_time(x) else x) * self.gain, weight, bias)
        return synapse.run(x, *self._rounded(weight, bias, norm.of_batch(mean)))

    def weights(self, synapse: Synapse, norm: Norm | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the chip holds them in evaluation, times 1/64.

        Raises SpikestrapError for a layer that does more than they say.
        """
        return self._rounded(*_unrounded(synapse), None if norm is None else norm.folded())

    def _rounded(
        self, weight: Tensor, bias: Tensor | None, affine: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        weight = weight * self.gain
        if affine is not None:
            weight, bias = fold(weight, bias, *affine)
        return weight_grid(weight, self.bits)(weight), None if bias is None else BIAS(bias)

    def pooling(self, synapse: Pooling) -> Tensor:
        """The weight of a pooling with a neuron behind it, as the chip holds it, times 1/64."""
        weight = torch.tensor(synapse.factor * self.gain, dtype=torch.float32)
        return weight_grid(weight, self.bits)(weight)

    def element_wise(self, synapse: ElementWise) -> tuple[Tensor, Tensor]:
        """Weight and bias of an input x in [0, 1].

        Lava's input layer takes 2 x - 1 and has whole 1/64 for both, so for x the weight is
        twice such a number.
        """
        half = BIAS(whole(synapse.weight) * self.gain / 2)
        return 2 * half, BIAS(whole(synapse.bias) + half) - half


def _unrounded(synapse: Synapse) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, in float32 where they are halves; SpikestrapError if they are not all."""
    # The layer itself is not called; hooks that only look on miss nothing that matters.
    more = None if torch.compiler.is_compiling() else more_than_weights(synapse.layer)
    if more is not None:
        raise SpikestrapError(
            f"the chip's precision rounds the weight and bias of a layer and does not call it, but "
            f"{more}; expected a parametrization of the weight, by torch.nn.utils.parametrize or "
            "torch.nn.utils.parametrizations, or a pruning that prune.remove made final"
        )
    return whole(synapse.weight), None if synapse.bias is None else whole(synapse.bias)


def encode(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The current weight * x + bias of an input x, in whole 1/64."""
    return BIAS(x * weight.to(x) + bias.to(x))


def check_precision(precision: str) -> str:
    """The precision itself, or SpikestrapError."""
    check_choice("precision", precision, PRECISIONS)
    return precision
