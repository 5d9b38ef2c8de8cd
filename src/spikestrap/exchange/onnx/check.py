"""Whether a file computes what the network does in ANN mode: both run, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...block import Block
from ...errors import SpikestrapError
from ...network import Network
from ..writing import Shape, probe
from .nodes import End, rates_of

_CLOSE = 1e-4
_TIES = 0.01


def check(onnx: Any, content: bytes, model: Network, shape: Shape, ends: Sequence[End]) -> None:
    """Raises SpikestrapError at the first block whose rates differ.

    Random inputs of 8 strengths. Every block of the network gets what the file's block before
    gave. A rate that lies between two multiples of 1 / T may be rounded to either, in few places.
    """
    made = onnx.load_model_from_string(content)
    onnx.checker.check_model(made)
    names = list(dict.fromkeys(name for name, _ in ends if name != "input"))
    made.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    x = probe(shape)
    found = onnx.reference.ReferenceEvaluator(made).run(["logits", *names], {"input": x.numpy()})
    values = {"input": x, **{n: torch.tensor(v) for n, v in zip(names, found[1:], strict=True)}}
    before = "input"
    for number, (block, (name, _)) in enumerate(zip(model.blocks, ends, strict=True)):
        expected, got = rates_of(block, values[before]), values[name]
        off, close = (got - expected).abs(), _CLOSE * max(1.0, float(expected.abs().max()))
        step = 0.0
        if isinstance(block, Block) and block.unit.sampler.rounding:
            step = 1 / block.unit.sampler.time_steps
        if float(off.max()) > step + close or float((off > close).float().mean()) > _TIES:
            raise SpikestrapError(
                f"ONNX: what block {number} ({type(block).__name__}) gives in the file differs "
                f"from the network's by {float(off.max()):g}"
            )
        before = name
