"""What any format takes of a network: the shape of its input, its weights, inputs to compare on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import SpikestrapError
from ..network import Network, flat_input
from ..norm import Norm, fold
from ..synapse import Synapse

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def input_shape(net: Network, given: Sequence[int] | None, kind: str) -> Shape:
    """The shape of one input, (C,) or (C, H, W): the one given, else what the first block says."""
    shape = flat_input(net.blocks) if given is None else tuple(given)
    if shape is None:
        raise SpikestrapError(
            f"{kind}: the shape of one input does not follow from the first block: "
            "pass input_shape, (C,) or (C, H, W), without T and N"
        )
    if len(shape) not in (1, 3) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise SpikestrapError(f"{kind}: input_shape must be (C,) or (C, H, W), got {given!r}")
    return shape


@torch.no_grad()
def folded(synapse: Synapse, norm: Norm | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with the norm of evaluation in them, computed in float64."""
    layer, bias = synapse.layer, synapse.bias
    weight = synapse.weight.double()
    bias = None if bias is None else bias.double()
    if norm is None:
        return weight, bias
    scale, shift = (part.double() for part in norm.folded())
    if not isinstance(layer, nn.ConvTranspose2d):
        return fold(weight, bias, scale, shift)
    if layer.groups != 1:
        raise SpikestrapError(f"the norm of a convolution in {layer.groups} groups stays apart")
    # A transposed convolution has its outputs second.
    weight, bias = fold(weight.transpose(0, 1), bias, scale, shift)
    return weight.transpose(0, 1), bias


def numbers(values: Tensor) -> Array:
    """The values as finite float32."""
    array = values.detach().float().cpu().contiguous().numpy()
    if not np.all(np.isfinite(array)):
        raise SpikestrapError("it holds NaN or inf; expected finite numbers")
    return array


def probe(shape: Shape, *lead: int) -> Tensor:
    """Random inputs (*lead, 8, *shape) of 8 strengths, an eighth of full scale to 16 times it."""
    x = torch.rand(*lead, 8, *shape, generator=torch.Generator().manual_seed(0))
    return x * 2.0 ** torch.arange(-3, 5).view(-1, *[1] * len(shape))
