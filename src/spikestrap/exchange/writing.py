"""What any format takes of a network: the shape of its input, its weights, inputs to compare on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import SpikestrapError, at
from ..network import Network, check_shape, flat_input
from ..norm import Norm, fold
from ..precision import without_autocast
from ..synapse import Synapse

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@contextmanager
def plainly() -> Iterator[None]:
    """Whatever the caller is within: no autocast, no inference mode, no gradients.

    >>> with torch.inference_mode(), plainly():
    ...     torch.ones(1).is_inference()
    False
    """
    with torch.inference_mode(False), torch.no_grad(), without_autocast("cpu"):
        yield


def input_shape(net: Network, given: Sequence[int] | None, kind: str) -> Shape:
    """The shape of one input, (C,) or (C, H, W): the one given, else what the first block says."""
    if given is not None:
        with at(kind):
            return check_shape(given)
    shape = flat_input(net.blocks)
    if shape is None:
        raise SpikestrapError(
            f"{kind}: the shape of one input does not follow from the first block: "
            "pass input_shape, (C,) or (C, H, W), without T and N"
        )
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
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(*lead, 8, *shape, generator=generator, dtype=torch.float32)
    return x * torch.exp2(torch.arange(-3.0, 5, dtype=x.dtype)).view(-1, *[1] * len(shape))
