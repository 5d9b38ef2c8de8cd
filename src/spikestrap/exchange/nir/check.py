"""Whether a graph fires as the network does: run both on one input, compare spike by spike."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import nir
import torch
from torch import Tensor

from ...block import Block
from ...errors import SpikestrapError
from ...network import Network
from ...timeaxis import hold
from ..writing import Shape, probe
from .interpreter import run

# The interpreter is float64, the network float32: so far from the threshold, in units of the
# largest membrane, a spike is a matter of rounding.
_EDGE = 1e-4
_TIME_STEPS = 16  # of a network that has none of its own


def check(
    net: Network, graph: nir.NIRGraph, shape: Shape, firing: Mapping[str, int], dt: float
) -> None:
    """Raises SpikestrapError at the first neuron whose spikes differ.

    Random inputs of 8 strengths, from an eighth of full scale to 16 times it. Each layer of
    the graph gets the spikes that the network's layer before had, so that a spike that falls
    to one side or the other by rounding does not shift what comes after.
    """
    model = copy.deepcopy(net).cpu().float().eval()
    static = model.time_steps is not None
    x = probe(shape) if static else probe(shape, _TIME_STEPS)
    spikes, logits = _spikes(model, x)
    given = {name: spikes[number] for name, number in firing.items()}
    held = hold(x, model.time_steps) if model.time_steps is not None else x
    outputs, membranes = run(graph, held, dt, given)
    for name, expected in given.items():
        _compare(name, expected, outputs[name], membranes[name], graph.nodes[name].v_threshold)
    found = outputs["output"].mean(0)
    if not torch.allclose(found, logits, rtol=_EDGE, atol=_EDGE * float(logits.abs().max())):
        worst = float((found - logits).abs().max())
        raise SpikestrapError(f"NIR: the graph's output differs from the network's by {worst:g}")


@torch.no_grad()
def _spikes(model: Network, x: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """The spikes of every block's unit, and the logits."""
    found: dict[int, Tensor] = {}
    for number, block in enumerate(model.blocks):
        if isinstance(block, Block):

            def keep(_: Any, __: Any, spikes: Tensor, number: int = number) -> None:
                found[number] = spikes

            block.unit.register_forward_hook(keep)
    out = model(x)
    return found, (out[0] if isinstance(out, tuple) else out).double()


def _compare(name: str, expected: Tensor, got: Tensor, v: Tensor, threshold: Any) -> None:
    differs = expected.double() != got
    # Of each neuron only the first difference counts: what follows has another state.
    first = differs & (differs.cumsum(0) == 1)
    distance = (v - torch.as_tensor(threshold, dtype=torch.float64)).abs()
    wrong = first & (distance > _EDGE * v.abs().max())
    if bool(wrong.any()):
        step, sample, *neuron = wrong.nonzero()[0].tolist()
        raise SpikestrapError(
            f"NIR: node {name!r} does not fire as the network: neuron {tuple(neuron)}, step "
            f"{step} of sample {sample}, {int(wrong.sum())} neurons in all"
        )
