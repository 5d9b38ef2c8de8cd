"""Synapses for inference: norm, weight norm and quantization are in their weights.

Each takes x (T, N, features...), spikes as bytes or any numbers as float32, and gives z float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernel.inference import add_rows
from ..kernel.rows import COLUMNS, packed
from ..norm import Norm, fold
from ..quantize import Quantizer
from ..synapse import Synapse, check_features, more_than_weights
from ..timeaxis import over_time

Weigh = Callable[[Tensor], Tensor]

# Up to this share of spikes, and some more, adding rows beat a dense product of 512 rows of
# 512. A constant, so that what is computed does not depend on how busy the machine is.
SPARSE = 0.5
# For shorter rows, as of a readout, it has not been tried.
SHORTEST_ROW = 32


def weighing(synapse: nn.Module, norm: Norm | None, quantizer: Quantizer | None) -> Weigh:
    """What the three make of x, in as few operations as they allow."""
    layer = synapse.layer if type(synapse) is Synapse else None
    # With a quantizer the layer is not called, and so its hooks are not either.
    if (
        isinstance(layer, nn.Linear | nn.Conv2d)
        and isinstance(synapse, Synapse)
        and (quantizer is not None or _plain(synapse))
    ):
        if quantizer is not None:
            weight, bias = quantizer.weights(synapse, norm)
        elif norm is not None:
            weight, bias = fold(synapse.weight, synapse.bias, *norm.folded())
        else:
            weight, bias = synapse.weight, synapse.bias
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        if isinstance(layer, nn.Linear):
            return Dense(weight, bias)
        return Conv(layer, weight, bias)
    return partial(_as_they_are, synapse, norm, quantizer)


def _as_they_are(
    synapse: nn.Module, norm: Norm | None, quantizer: Quantizer | None, x: Tensor
) -> Tensor:
    x = x.float()
    if quantizer is not None:
        return quantizer(synapse, norm, x)
    z: Tensor = synapse(x) if norm is None else norm(synapse(x))
    return z


def _plain(synapse: Synapse) -> bool:
    """Whether weight and bias are all of it: a hook may change what goes in or comes out."""
    hooked = any(m._forward_pre_hooks or m._forward_hooks for m in (synapse, synapse.layer))
    return not hooked and more_than_weights(synapse.layer) is None


class Dense:
    """x (T, N, K) or (N, K) times weight (O, K) plus bias (O,).

    >>> weight, spikes = torch.rand(40, 6), torch.eye(6, dtype=torch.uint8).unsqueeze(0)
    >>> torch.equal(Dense(weight, None)(spikes)[0], weight.T)
    True
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        table = packed(weight.t())
        self.rows, self.constant = table.numpy(), np.zeros(len(table) * COLUMNS, np.float32)
        if bias is not None:
            self.constant[: len(bias)] = bias.numpy()

    def __reduce__(self) -> Any:
        return Dense, (self.weight, self.bias)  # the table is the same once more

    def __call__(self, x: Tensor) -> Tensor:
        check_features(x, 1, self.weight.shape[1])
        if x.dtype is torch.uint8 and self.weight.shape[0] >= SHORTEST_ROW and x.numel():
            spikes = x.contiguous().numpy().reshape(-1, x.shape[-1])
            if np.count_nonzero(spikes.view(np.bool_)) <= SPARSE * spikes.size:
                z = torch.empty((*x.shape[:-1], len(self.constant)))
                add_rows(spikes, self.rows, self.constant, z.numpy().reshape(len(spikes), -1))
                return z[..., : len(self.weight)].contiguous()
        return F.linear(x.float(), self.weight, self.bias)


class Conv:
    """Convolution of x (T, N, C, H, W), channels last in memory, as is what it gives."""

    def __init__(self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias
        self.channels = layer.in_channels
        self.size: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def __call__(self, x: Tensor) -> Tensor:
        check_features(x, 3, self.channels)
        return over_time(self._convolved, x.float())

    def _convolved(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, *self.size)
