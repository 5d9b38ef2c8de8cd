"""A NIR graph as a network of blocks: linear nodes up to a neuron make a block."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import nn

from ...block import Affine, AvgPool, Block, Conv, Delay, Dense, Flatten, Input, Pool
from ...errors import SpikestrapError, at
from ...fixed import MAX_NEURONS
from ...network import Network
from ...neuron import Neuron
from ...precision import whole
from ...synapse import ElementWise, Synapse
from .dynamics import CURRENT, FIRING, Array, Shape, check_dt, from_nodes, short, text

DEFAULT_DT = 1e-4
_POOLING = (nir.AvgPool2d, nir.SumPool2d)
_LINEAR = (nir.Linear, nir.Affine, nir.Conv2d, nir.Scale, nir.Flatten, *_POOLING)
_KNOWN = (nir.Input, nir.Output, nir.Delay, *_LINEAR, *CURRENT, *FIRING)
# A torch layer on one linear node: the node, and the shape of its input and output.
Step = tuple[str, nir.NIRNode, Shape, Shape]
MAX_DELAY = 2**20  # in steps


@torch.inference_mode(False)  # or what is built there could never be trained
def build(graph: nir.NIRGraph, dt: float | None, time_steps: int | None) -> Network:
    """See `from_graph`."""
    if not isinstance(graph, nir.NIRGraph):
        raise SpikestrapError(f"NIR: expected a NIRGraph, got {type(graph).__name__}")
    meta = graph.metadata if isinstance(graph.metadata, Mapping) else {}
    dt = check_dt(meta.get("dt", DEFAULT_DT) if dt is None else dt)
    time_steps = meta.get("time_steps") if time_steps is None else time_steps
    chain = [(name, _without_tensors(node)) for name, node in _chain(graph)]
    blocks: list[nn.Module] = []
    waiting: list[Step] = []
    shape = _shape_of(chain[0][1])
    place = 1
    while place < len(chain):
        name, node = chain[place]
        if isinstance(node, nir.Output):
            break
        with at(f"NIR: node {name!r} ({type(node).__name__})"):
            if isinstance(node, _LINEAR):
                after = _bounded(_shape_after(node, shape))
                waiting.append((name, node, shape, after))
                shape = after
            elif isinstance(node, nir.Delay):
                _delay(node, shape, dt, blocks, waiting)
                waiting = []
            else:
                count = 2 if isinstance(node, CURRENT) else 1
                neuron = _neuron([n for _, n in chain[place : place + count]], shape, dt)
                blocks += _blocks(neuron, waiting, shape)
                waiting, place = [], place + count - 1
        place += 1
    blocks += _readout(waiting)
    if not blocks:
        raise SpikestrapError("NIR: the graph has nothing between its input and its output")
    expected = _shape_of(chain[-1][1])
    if expected != shape:
        raise SpikestrapError(f"NIR: the output has shape {expected}, what leads to it {shape}")
    if time_steps is not None:
        time_steps = _whole(time_steps, "time_steps", 1)
    return Network(*blocks, time_steps=time_steps)


def input_shape(graph: nir.NIRGraph) -> tuple[int, ...]:
    """The shape of one input of a graph that `from_graph` takes, without T and N.

    >>> input_shape(nir.NIRGraph.from_list(nir.Linear(np.ones((32, 64)))))
    (64,)
    """
    return _shape_of(_chain(graph)[0][1])


def _chain(graph: nir.NIRGraph) -> list[tuple[str, nir.NIRNode]]:
    """Name and node from the input to the output. Raises unless every node is on that way."""
    after: dict[str, str] = {}
    before: dict[str, str] = {}
    for source, target in graph.edges:
        for end in (source, target):
            if end not in graph.nodes:
                raise SpikestrapError(f"NIR: an edge leads to the node {end!r}, which is missing")
        if source in after or target in before:
            end = source if source in after else target
            raise SpikestrapError(
                f"NIR: the graph branches at node {end!r}; a Network is a chain of nodes"
            )
        after[source], before[target] = target, source
    for name, node in graph.nodes.items():
        if not isinstance(node, _KNOWN):
            raise SpikestrapError(
                f"NIR: node {name!r} is a {type(node).__name__}, for which there is no block"
            )
    starts = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    if len(starts) != 1:
        raise SpikestrapError(f"NIR: expected one Input node, got {len(starts)}")
    chain = [starts[0]]
    while chain[-1] in after and len(chain) <= len(graph.nodes):
        chain.append(after[chain[-1]])
    if len(chain) != len(graph.nodes) or not isinstance(graph.nodes[chain[-1]], nir.Output):
        raise SpikestrapError(
            f"NIR: expected one chain of all {len(graph.nodes)} nodes from the Input to the "
            f"Output, without a cycle; it ends at {chain[-1]!r} after {len(set(chain))} nodes"
        )
    return [(name, graph.nodes[name]) for name in chain]


def _without_tensors(node: nir.NIRNode) -> nir.NIRNode:
    """A copy with arrays for the tensors that exporters of torch's libraries leave in a node."""
    node = copy.copy(node)
    for field in dataclasses.fields(node):
        value = getattr(node, field.name, None)
        if isinstance(value, torch.Tensor):
            setattr(node, field.name, whole(value.detach()).cpu().numpy())
    return node


def _shape_of(node: nir.NIRNode) -> Shape:
    kind = "input" if isinstance(node, nir.Input) else "output"
    shape = getattr(node, f"{kind}_type")[kind]
    sizes = _sizes(shape, f"the shape of the {kind}", 1)
    if len(sizes) not in (1, 3):
        raise SpikestrapError(f"NIR: the {kind} must be (C,) or (C, H, W), got {sizes}")
    return _bounded(sizes)


def _bounded(shape: Shape) -> Shape:
    if math.prod(shape) > MAX_NEURONS:
        raise SpikestrapError(f"NIR: shape {shape} has more than {MAX_NEURONS} values")
    return shape


def _neuron(nodes: Sequence[nir.NIRNode], shape: Shape, dt: float) -> Neuron:
    if not isinstance(nodes[-1], FIRING) or (
        len(nodes) == 2 and isinstance(nodes[-1], nir.CubaLIF)
    ):
        raise SpikestrapError(
            "a current makes a block only with an IF or LIF behind it; an integrator that is "
            "read out has none"
        )
    nodes = [_spread(node, shape) for node in nodes]
    for node in nodes:
        if np.shape(node.r) != shape:
            raise SpikestrapError(
                f"its parameters have shape {np.shape(node.r)}, its input {shape}"
            )
    return from_nodes(nodes, dt)


def _spread(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    """A copy in which a parameter of one number is one for every neuron."""
    node = copy.copy(node)
    for field in dataclasses.fields(node):
        value = getattr(node, field.name, None)
        if isinstance(value, np.ndarray | np.number) and value.size == 1:
            setattr(node, field.name, np.full(shape, value.item()))
    return node


def _blocks(neuron: Neuron, linear: Sequence[Step], shape: Shape) -> list[nn.Module]:
    """The blocks of a neuron and of the linear nodes before it."""
    count = 0
    while count < len(linear) - 1 and _needs_no_neuron(linear, count):
        count += 1
    if count == len(linear) - 1 and isinstance(linear[count][1], nir.Flatten):
        count += 1
    free, rest = _free(linear[:count]), linear[count:]
    if not rest:
        return [*free, Input(neuron)]
    if len(rest) == 1:
        return [*free, _spiking(neuron, rest[0])]
    synapse = nn.Sequential(*(_synapse(step) for step in rest))
    return [*free, Block(neuron, synapse, shape[0])]


def _readout(linear: Sequence[Step]) -> list[nn.Module]:
    """Linear nodes after the last neuron: at most one Linear or Affine, at the end."""
    if not linear:
        return []
    *free, last = linear
    if isinstance(last[1], nir.Linear | nir.Affine):
        weight, bias = _weights(last)
        readout = Affine(None, weight.shape[1], weight.shape[0], bias=bias is not None)
        _load(readout.synapse.layer, weight, bias)
        return [*_free(free), readout]
    return _free(linear)


def _needs_no_neuron(steps: Sequence[Step], place: int) -> bool:
    node = steps[place][1]
    if isinstance(node, nir.Scale):
        scale = _numbers(node.scale, "scale")
        behind_pool = place > 0 and isinstance(steps[place - 1][1], _POOLING)
        return behind_pool and bool(np.all(scale == scale.flat[0]))
    return isinstance(node, (*_POOLING, nir.Flatten))


def _free(steps: Sequence[Step]) -> list[nn.Module]:
    """Blocks of nodes that need no neuron; one number behind a pooling is the pooling's weight."""
    blocks: list[nn.Module] = []
    for place, (name, node, _, _) in enumerate(steps):
        if not _needs_no_neuron(steps, place):
            raise SpikestrapError(
                f"NIR: node {name!r} ({type(node).__name__}) has no neuron behind it; only a "
                "Linear or Affine node may be read out"
            )
        if isinstance(node, nir.Scale):
            _, pool, _, _ = steps[place - 1]
            blocks[-1] = _pool(pool, float(_numbers(node.scale, "scale").flat[0]))
        else:
            blocks.append(Flatten() if isinstance(node, nir.Flatten) else _pool(node, 1.0))
    return blocks


def _pool(node: nir.NIRNode, weight: float) -> AvgPool:
    kernel, stride, padding = _pool_sizes(node)
    if isinstance(node, nir.SumPool2d):
        weight *= kernel[0] * kernel[1]
    return AvgPool(kernel, stride, padding, weight=weight)


def _spiking(neuron: Neuron, step: Step) -> nn.Module:
    """A block of a neuron and one linear node."""
    _, node, before, after = step
    if isinstance(node, _POOLING):
        kernel, stride, padding = _pool_sizes(node)
        kind = "sum" if isinstance(node, nir.SumPool2d) else "average"
        return Pool(neuron, kernel, stride, padding, kind=kind)
    if isinstance(node, nir.Scale) or _is_input(node):
        block = Input(neuron)
        block.synapse = _synapse(step)
        return block
    weight, bias = _weights(step)
    made: Dense | Conv
    if isinstance(node, nir.Conv2d):
        options = _conv_options(node)
        made = Conv(
            neuron,
            before[0],
            after[0],
            (weight.shape[2], weight.shape[3]),
            bias=bias is not None,
            **options,
        )
    else:
        made = Dense(neuron, before[0], after[0], bias=bias is not None)
    synapse = made.synapse
    assert isinstance(synapse, Synapse)
    _load(synapse.layer, weight, bias)
    return made


def _synapse(step: Step) -> nn.Module:
    _, node, before, after = step
    if isinstance(node, nir.Flatten):
        return Flatten()
    if isinstance(node, _POOLING):
        return _pool(node, 1.0).pooling
    if isinstance(node, nir.Scale):
        scale = _numbers(node.scale, "scale")
        made = ElementWise(float(scale.flat[0]), 0.0)
        if np.any(scale != scale.flat[0]):
            made.weight = nn.Parameter(torch.from_numpy(scale.copy()))
        return made
    weight, bias = _weights(step)
    if _is_input(node):
        assert bias is not None
        return ElementWise(float(weight.flat[0]), float(bias.flat[0]))
    layer: nn.Module
    if isinstance(node, nir.Conv2d):
        size = (weight.shape[2], weight.shape[3])
        options = _conv_options(node)
        layer = nn.Conv2d(before[0], after[0], size, bias=bias is not None, **options)
    else:
        layer = nn.Linear(before[0], after[0], bias is not None)
    _load(layer, weight, bias)
    return Synapse(layer, len(before), before[0], after[0])


def _is_input(node: nir.NIRNode) -> bool:
    """Whether it is written for an Input block, and still one number times the identity."""
    if not isinstance(node, nir.Affine | nir.Conv2d) or text(node.metadata, "block") != "Input":
        return False
    weight = node.weight.reshape(node.weight.shape[0], -1)
    identity = (
        np.eye(weight.shape[0], dtype=weight.dtype) if weight.shape[0] == weight.shape[1] else 0
    )
    return np.array_equal(weight, weight.flat[0] * identity) and np.ptp(node.bias) == 0


def _load(layer: nn.Module, weight: Array, bias: Array | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]


def _delay(
    node: nir.Delay, shape: Shape, dt: float, blocks: list[nn.Module], waiting: Sequence[Step]
) -> None:
    """Adds the delay to the blocks, or to the last of them if it is one step everywhere."""
    delay = _numbers(node.delay, "delay")
    _expect(delay, shape, "delay")
    steps = np.rint(delay / dt)
    if not np.allclose(delay, steps * dt, rtol=1e-3, atol=0) or steps.min() < 0:
        raise SpikestrapError(f"expected whole steps of dt = {dt:g} s >= 0, got {short(delay)} s")
    rows = steps.reshape(shape[0], -1)
    if np.any(rows != rows[:, :1]):
        raise SpikestrapError("expected one delay a channel, got several")
    if not all(_needs_no_neuron(waiting, place) for place in range(len(waiting))):
        raise SpikestrapError("a delay makes sense here only of spikes, not of a weighted input")
    last = blocks[-1] if blocks and not waiting else None
    if isinstance(last, Block) and not last.delay_shift and np.all(steps == 1):
        last.delay_shift = True
        return
    blocks += _free(waiting)
    longest = max(int(steps.max()), 1)
    if longest > MAX_DELAY:
        raise SpikestrapError(f"expected at most {MAX_DELAY} steps, got {longest}")
    initial = torch.from_numpy(rows[:, 0].copy())
    blocks.append(Delay(shape[0], longest, initial=initial, learnable=False))


def _shape_after(node: nir.NIRNode, shape: Shape) -> Shape:
    """The shape behind a linear node; raises where the node does not fit the shape before it."""
    if isinstance(node, nir.Linear | nir.Affine):
        weight = _numbers(node.weight, "weight", 2)
        if shape != (weight.shape[1],):
            raise SpikestrapError(f"its weight has shape {weight.shape}, its input {shape}")
        if isinstance(node, nir.Affine):
            _expect(_numbers(node.bias, "bias"), (weight.shape[0],), "bias")
        return (weight.shape[0],)
    if isinstance(node, nir.Scale):
        _expect(_numbers(node.scale, "scale"), shape, "scale")
        return shape
    if isinstance(node, nir.Flatten):
        start, end = (_axis(d) for d in (node.start_dim, node.end_dim))
        if start not in (0, -len(shape)) or end not in (-1, len(shape) - 1):
            raise SpikestrapError(
                f"expected all axes to be flattened, start_dim 0 and end_dim -1, got {start}, {end}"
            )
        return (math.prod(shape),)
    if len(shape) != 3:
        raise SpikestrapError(f"expected images (C, H, W) before it, got shape {shape}")
    if isinstance(node, nir.Conv2d):
        weight = _numbers(node.weight, "weight", 4)
        options = _conv_options(node)
        groups = options["groups"]
        if weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
            raise SpikestrapError(
                f"its weight has shape {weight.shape} in {groups} groups, its input {shape}"
            )
        _expect(_numbers(node.bias, "bias"), (weight.shape[0],), "bias")
        if options["padding"] == "same":
            if options["stride"] != (1, 1):
                raise SpikestrapError(f"padding 'same' needs stride 1, got {options['stride']}")
            return (weight.shape[0], *shape[1:])
        padding = (0, 0) if options["padding"] == "valid" else options["padding"]
        kernel, stride, dilation = weight.shape[2:], options["stride"], options["dilation"]
        channels = weight.shape[0]
    else:
        kernel, stride, padding = _pool_sizes(node)
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise SpikestrapError(f"padding {padding} is more than half the kernel {kernel}")
        dilation, channels = (1, 1), shape[0]
    sides = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip(shape[1:], padding, dilation, kernel, stride, strict=True)
    ]
    if min(sides) < 1:
        raise SpikestrapError(f"its kernel {tuple(kernel)} is larger than its input {shape}")
    return (channels, sides[0], sides[1])


def _weights(step: Step) -> tuple[Array, Array | None]:
    node = step[1]
    weight = _numbers(node.weight, "weight")
    if isinstance(node, nir.Linear):
        return weight, None
    bias = _numbers(node.bias, "bias")
    if text(node.metadata, "bias") == "none" and not np.any(bias):
        return weight, None
    return weight, bias


def _conv_options(node: nir.Conv2d) -> dict[str, Any]:
    padding = node.padding
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise SpikestrapError(
                f"padding must be 'same', 'valid' or numbers, got {short(padding)}"
            )
    else:
        padding = _pair(padding, "padding", 0)
    return {
        "stride": _pair(node.stride, "stride", 1),
        "padding": padding,
        "dilation": _pair(node.dilation, "dilation", 1),
        "groups": _whole(node.groups, "groups", 1),
    }


def _pool_sizes(node: nir.NIRNode) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return (
        _pair(node.kernel_size, "kernel_size", 1),
        _pair(node.stride, "stride", 1),
        _pair(node.padding, "padding", 0),
    )


def _numbers(values: Any, name: str, axes: int | None = None) -> Array:
    """A finite array, as float32."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or not values.size:
        raise SpikestrapError(f"{name} must be an array of numbers, got {type(values).__name__}")
    if axes is not None and values.ndim != axes:
        raise SpikestrapError(f"{name} must have {axes} axes, got shape {values.shape}")
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, np.float32)
    if not np.all(np.isfinite(numbers)):
        raise SpikestrapError(f"{name} holds NaN or inf; expected finite numbers")
    return numbers


def _expect(values: Array, shape: Shape, name: str) -> None:
    if values.shape != shape:
        raise SpikestrapError(f"{name} has shape {values.shape}, expected {shape}")


def _sizes(values: Any, name: str, least: int) -> Shape:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > 8 or np.any(array < least):
        raise SpikestrapError(f"{name} must be whole numbers >= {least}, got {short(values)}")
    if np.any(array >= 2**31):
        raise SpikestrapError(f"{name} is too large: {short(values)}")
    return tuple(int(n) for n in array.flat)


def _pair(values: Any, name: str, least: int) -> tuple[int, int]:
    sizes = _sizes(values, name, least)
    if len(sizes) not in (1, 2):
        raise SpikestrapError(f"{name} must be one or two whole numbers, got {sizes}")
    return sizes[0], sizes[-1]


def _axis(value: Any) -> int:
    """An axis, which may count from behind."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.size != 1:
        raise SpikestrapError(f"expected a whole number for each axis, got {short(value)}")
    return int(array.flat[0])


def _whole(value: Any, name: str, least: int) -> int:
    sizes = _sizes(value, name, least)
    if len(sizes) != 1:
        raise SpikestrapError(f"{name} must be a whole number, got {sizes}")
    return sizes[0]
