"""Runs a NIR graph: forward Euler in float64, node by node, nothing of the package's neurons.

A second pair of eyes: what `write` has written is run here and held against the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import nir
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import SpikestrapError


def run(
    graph: nir.NIRGraph, x: Tensor, dt: float, given: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Output (T, N, ...) of every node, and the membrane before the reset of those that fire.

    x: (T, N, features...), for every Input node. An output in `given` goes on to the nodes
    behind it instead of what was computed, which is returned all the same.

    >>> import numpy as np
    >>> two = np.full(1, 2.0)
    >>> lif = nir.LIF(tau=two, r=two, v_leak=0 * two, v_threshold=two / 2)
    >>> outputs, membrane = run(nir.NIRGraph.from_list(lif), 0.8 * torch.ones(4, 1, 1), dt=1.0)
    >>> outputs["lif"].flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    given = given or {}
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        before[target].append(source)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:
        raise SpikestrapError("NIR: the graph has a cycle; only chains without one run") from None
    outputs: dict[str, Tensor] = {}
    membranes: dict[str, Tensor] = {}
    for name in order:
        node = graph.nodes[name]
        inputs = [given.get(source, outputs[source]).double() for source in before[name]]
        value = x.double() if isinstance(node, nir.Input) else torch.stack(inputs).sum(0)
        outputs[name], membrane = _node(node, value, dt)
        if membrane is not None:
            membranes[name] = membrane
    return outputs, membranes


def _node(node: nir.NIRNode, x: Tensor, dt: float) -> tuple[Tensor, Tensor | None]:
    if isinstance(node, nir.Input | nir.Output):
        return x, None
    if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
        return _fire(node, x, dt)
    if isinstance(node, nir.I | nir.LI):
        return _integrate(node, x, dt), None
    if isinstance(node, nir.Delay):
        return _late(x, (_tensor(node.delay) / dt).round().long()), None
    return _stateless(node, x.flatten(0, 1)).unflatten(0, x.shape[:2]), None


def _late(x: Tensor, steps: Tensor) -> Tensor:
    """x (T, N, features...) so many steps (features...) later."""
    late = torch.zeros_like(x)
    for step in steps.unique().tolist():
        here, end = steps == step, max(x.shape[0] - step, 0)
        late[step:, :, here] = x[:end, :, here]
    return late


def _stateless(node: nir.NIRNode, x: Tensor) -> Tensor:
    """One step of a node without memory: (N, ...) to (N, ...)."""
    if isinstance(node, nir.Scale):
        return x * _tensor(node.scale)
    if isinstance(node, nir.Linear):
        return x @ _tensor(node.weight).T
    if isinstance(node, nir.Affine):
        return x @ _tensor(node.weight).T + _tensor(node.bias)
    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str) else _pair(node.padding)
        stride, dilation = _pair(node.stride), _pair(node.dilation)
        weight, bias = _tensor(node.weight), _tensor(node.bias)
        return F.conv2d(x, weight, bias, stride, padding, dilation, int(node.groups))
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        kernel, stride = _pair(node.kernel_size), _pair(node.stride)
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return F.avg_pool2d(x, kernel, stride, _pair(node.padding), divisor_override=divisor)
    if isinstance(node, nir.Flatten):
        # NIR counts the axes of one sample, so the batch is not among them.
        start, end = (int(d) + 1 if d >= 0 else int(d) for d in (node.start_dim, node.end_dim))
        return x.flatten(start, end)
    raise SpikestrapError(f"NIR: no rule for a node {type(node).__name__}")


def _fire(node: nir.NIRNode, x: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    threshold, v_reset, r = (_tensor(p) for p in (node.v_threshold, node.v_reset, node.r))
    reset = node.metadata.get("reset", "zero")
    v = _tensor(node.metadata.get("v_init", 0.0))
    v = (v.view(-1, *[1] * (x.ndim - 3)) if v.ndim else v).expand(x.shape[1:])
    current = torch.zeros(x.shape[1:], dtype=torch.float64)
    spikes, membranes = [], []
    for s in x:
        if isinstance(node, nir.CubaLIF):
            current = current + dt / _tensor(node.tau_syn) * (_tensor(node.w_in) * s - current)
        else:
            current = s
        if isinstance(node, nir.IF):
            v = v + dt * r * current
        else:
            tau = _tensor(node.tau_mem if isinstance(node, nir.CubaLIF) else node.tau)
            v = v + dt / tau * (_tensor(node.v_leak) - v + r * current)
        fired = v > threshold
        spikes.append(fired.double())
        membranes.append(v)
        if reset == "zero":
            v = torch.where(fired, v_reset, v)
        elif reset == "subtract":
            v = torch.where(fired, v - threshold, v)
    return torch.stack(spikes), torch.stack(membranes)


def _integrate(node: nir.NIRNode, x: Tensor, dt: float) -> Tensor:
    v = torch.zeros(x.shape[1:], dtype=torch.float64)
    steps = []
    for s in x:
        if isinstance(node, nir.I):
            v = v + dt * _tensor(node.r) * s
        else:
            v = v + dt / _tensor(node.tau) * (_tensor(node.v_leak) - v + _tensor(node.r) * s)
        steps.append(v)
    return torch.stack(steps)


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _pair(size: Any) -> tuple[int, int]:
    height, width = torch.as_tensor(size).flatten().expand(2).tolist()
    return int(height), int(width)
