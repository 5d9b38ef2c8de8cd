"""A network of blocks as a NIR graph: a chain of linear nodes and neurons."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import nir
import numpy as np
import torch
from torch import nn

from ... import __version__ as _version
from ...block import Affine, AvgPool, Block, Delay, Dropout, Flatten
from ...block.recurrent import SelfDriven
from ...errors import SpikestrapError, at
from ...network import Network, refuse_own_forward
from ...norm import Norm
from ...synapse import ElementWise, Pooling, Synapse
from .. import writing
from ..writing import folded, numbers
from .dynamics import EXTRAS, Shape, check_dt, to_nodes

# What the square matrix of a shifted input may take: nir has no node for a shift alone.
_MOST_SHIFTED = 8192


class Export(NamedTuple):
    """A graph, its input's shape, and which node fires for which block."""

    graph: nir.NIRGraph
    input_shape: Shape
    firing: dict[str, int]


def export(
    net: Network, input_shape: Sequence[int] | None, dt: float, allow: Collection[str]
) -> Export:
    """See `to_graph`."""
    if not isinstance(net, Network):
        raise SpikestrapError(f"NIR: expected a Network, got {type(net).__name__}")
    refuse_own_forward(net, "NIR")
    if net.precision != "float":
        raise SpikestrapError(
            f"NIR's neurons are not integer ones: a network of precision={net.precision!r} would "
            'fire otherwise there; write a ".net" file, or train with precision="float"'
        )
    dt = check_dt(dt)
    if isinstance(allow, str) or any(extra not in EXTRAS for extra in allow):
        raise SpikestrapError(f"NIR: allow may hold {', '.join(EXTRAS)}; got {allow!r}")
    shape = start = writing.input_shape(net, input_shape, "NIR")
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(input_type=np.array(start))}
    firing: dict[str, int] = {}
    for number, block in enumerate(net.blocks):
        with at(f"NIR: block {number} ({type(block).__name__})"):
            made, shape = _block(block, shape, dt, allow)
        for node in made:
            nodes[f"block{number}_{type(node).__name__.lower()}{_suffix(node, made)}"] = node
        if isinstance(block, Block):
            name = next(n for n in reversed(nodes) if not isinstance(nodes[n], nir.Delay))
            firing[name] = number
    nodes["output"] = nir.Output(output_type=np.array(shape))
    names = list(nodes)
    metadata: dict[str, Any] = {"writer": f"spikestrap {_version}", "dt": dt}
    metadata["output"] = "mean over time"
    if net.time_steps is not None:
        metadata.update(input="held", time_steps=net.time_steps)
    edges = list(pairwise(names))
    # nir's own check takes kernels for square and ungrouped; the shapes here were computed.
    graph = nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata, type_check=False)
    return Export(graph, start, firing)


def _suffix(node: nir.NIRNode, made: Sequence[nir.NIRNode]) -> str:
    same = [other for other in made if type(other) is type(node)]
    return "" if len(same) == 1 else str([other is node for other in same].index(True))


def _block(
    block: nn.Module, shape: Shape, dt: float, allow: Collection[str]
) -> tuple[list[nir.NIRNode], Shape]:
    """The nodes of a block, and the shape of its output."""
    if isinstance(block, Dropout):
        return [], shape  # at rest outside training
    if isinstance(block, Flatten):
        return _linear(block, shape, None)
    if isinstance(block, AvgPool):
        return _linear(block.pooling, shape, None)
    if isinstance(block, Affine):
        return _linear(block.synapse, shape, None)
    if isinstance(block, Delay):
        return [_delay(block, shape, dt)], shape
    if not isinstance(block, Block):
        raise SpikestrapError("NIR has no node for it")
    if isinstance(block.unit.neuron, SelfDriven):
        raise SpikestrapError("it hears its own spikes: a cycle, and what is written is a chain")
    nodes, shape = _linear(block.synapse, shape, block.norm)
    nodes += to_nodes(block.unit.neuron, shape, dt, allow)
    if block.delay is not None:
        nodes.append(_delay(block.delay, shape, dt))
    if block.delay_shift:
        nodes.append(nir.Delay(delay=np.full(shape, dt)))
    return nodes, shape


def _delay(block: Delay, shape: Shape, dt: float) -> nir.NIRNode:
    if block.channels != shape[0]:
        raise SpikestrapError(f"it delays {block.channels} channels, its input has shape {shape}")
    seconds = block.steps.cpu().numpy() * dt
    each = seconds.reshape(-1, *[1] * (len(shape) - 1))
    return nir.Delay(delay=np.array(np.broadcast_to(each, shape)))


def _linear(module: nn.Module, shape: Shape, norm: Norm | None) -> tuple[list[nir.NIRNode], Shape]:
    """The nodes of what is linear, a norm behind it folded in; and the output's shape."""
    if norm is not None and not (isinstance(norm, Norm) and isinstance(module, Synapse)):
        raise SpikestrapError(
            f"the norm {type(norm).__name__} behind {type(module).__name__} cannot be folded"
        )
    if isinstance(module, nn.Sequential):
        nodes = []
        for part in module:
            made, shape = _linear(part, shape, None)
            nodes += made
        return nodes, shape
    if isinstance(module, Flatten):
        node = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
        return ([node] if len(shape) > 1 else []), (math.prod(shape),)
    after = _shape_after(module, shape)
    if isinstance(module, Synapse):
        return [_synapse(module, shape, norm)], after
    if isinstance(module, Pooling):
        return _pooling(module, after), after
    if isinstance(module, ElementWise):
        return [_element_wise(module, shape)], after
    raise SpikestrapError(f"NIR has no node for {type(module).__name__}")


def _shape_after(module: nn.Module, shape: Shape) -> Shape:
    like = next(module.parameters(), torch.empty(0))
    with torch.no_grad():
        try:
            return tuple(module(like.new_zeros(1, *shape)).shape[1:])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise SpikestrapError(f"does not take an input of shape {shape}: {reason}") from None


def _synapse(synapse: Synapse, shape: Shape, norm: Norm | None) -> nir.NIRNode:
    layer = synapse.layer
    weight, bias = folded(synapse, norm)
    if isinstance(layer, nn.Linear):
        if bias is None:
            return nir.Linear(weight=numbers(weight))
        return nir.Affine(weight=numbers(weight), bias=numbers(bias))
    if isinstance(layer, nn.Conv2d):
        metadata = {} if bias is not None else {"bias": "none"}
        return nir.Conv2d(
            input_shape=shape[1:],
            weight=numbers(weight),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=numbers(torch.zeros(weight.shape[0]) if bias is None else bias),
            metadata=metadata,
        )
    raise SpikestrapError(f"NIR has no node for {type(layer).__name__}")


def _pooling(pooling: Pooling, after: Shape) -> list[nir.NIRNode]:
    sizes = [np.array(size) for size in pooling.sizes]
    of_mean = pooling.factor * pooling.window  # its factor is that of the sum of a window
    if pooling.factor == 1:
        return [nir.SumPool2d(*sizes)]
    average = nir.AvgPool2d(*sizes)
    if np.float32(of_mean) == 1:
        return [average]
    return [average, nir.Scale(scale=np.full(after, of_mean, np.float32))]


def _element_wise(module: ElementWise, shape: Shape) -> nir.NIRNode:
    """weight * x + bias: a Scale; with a bias a diagonal Affine, or a 1 x 1 convolution."""
    weight, bias = (p.detach().cpu() for p in (module.weight, module.bias))
    if not bool((bias != 0).any()):
        return nir.Scale(scale=numbers(weight.expand(shape).clone()))
    if weight.ndim or bias.ndim:
        raise SpikestrapError("an input with weights of its own and a bias has no NIR node")
    metadata = {"block": "Input"}
    diagonal = numbers(weight * torch.eye(min(shape[0], _MOST_SHIFTED + 1)))
    if shape[0] > _MOST_SHIFTED:
        raise SpikestrapError(
            f"its bias would take a matrix {shape[0]} x {shape[0]}, as NIR has no node for a "
            f"shift; expected at most {_MOST_SHIFTED} features, or bias 0"
        )
    shift = numbers(bias.expand(shape[0]).clone())
    if len(shape) == 1:
        return nir.Affine(weight=diagonal, bias=shift, metadata=metadata)
    return nir.Conv2d(
        input_shape=shape[1:],
        weight=diagonal[:, :, None, None],
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
        bias=shift,
        metadata=metadata,
    )
