"""Blocks in ANN mode as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import __version__
from ...ann_sampler import AnnSampler
from ...block import Affine, AvgPool, Block, Dropout, Flatten, Upsample
from ...errors import SpikestrapError, at
from ...grid import BIAS, Grid
from ...network import Network
from ...norm import Norm
from ...quantize import Quantizer
from ...routine import Mode
from ...synapse import ElementWise, Pooling, Synapse, zeros_around
from ..writing import Shape, folded, numbers

# Old enough for every runtime in use; Resize took its present form in 13.
_OPSET, _IR = 17, 8

End = tuple[str, Shape]  # the name of a tensor and the shape of one sample of it


class Graph:
    """Collects nodes and constants; each call gives the name of a tensor."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.prefix = ""

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant of the value's shape."""
        name = f"{self.prefix}constant{len(self.constants)}"
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of that kind; its attributes are ONNX's."""
        name = f"{self.prefix}{kind.lower()}{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        )
        return name

    def model(self, shape: Shape, end: End) -> Any:
        """The model from `input` to the end, which becomes `logits`."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        last, out = end
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [last], ["logits"], name="logits")],
            "spikestrap",
            [helper.make_tensor_value_info("input", kind, ["N", *shape])],
            [helper.make_tensor_value_info("logits", kind, ["N", *out])],
            self.constants,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="spikestrap",
            producer_version=__version__,
        )


def build(model: Network, shape: Shape, graph: Graph) -> list[End]:
    """Adds every block; returns what each gives. Raises SpikestrapError for what has no rule."""
    ends: list[End] = []
    x, rates = "input", torch.zeros(1, *shape, dtype=torch.float32)
    for number, block in enumerate(model.blocks):
        graph.prefix = f"block{number}_"
        where = f"ONNX: block {number} ({type(block).__name__})"
        shape = tuple(rates.shape[1:])
        try:
            with at(where):
                rates = rates_of(block, rates)  # fits what is pending
                x = _block(block, x, shape, rates.ndim - 1, graph)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise SpikestrapError(
                f"{where} does not take an input of shape {shape}: {reason}"
            ) from None
        ends.append((x, tuple(rates.shape[1:])))
    return ends


@torch.no_grad()
def rates_of(block: nn.Module, x: Tensor) -> Tensor:
    """What a block makes of rates x in ANN mode."""
    out = block(x, mode=Mode.ANN)
    rates: Tensor = out[0] if isinstance(out, tuple) else out
    return rates


def _block(block: nn.Module, x: str, shape: Shape, axes: int, graph: Graph) -> str:
    """The block on x, whose samples have that shape; what it gives has so many axes without N."""
    if isinstance(block, Dropout):
        return x  # at rest outside training
    if isinstance(block, Flatten):
        return _flatten(x, shape, graph)
    if isinstance(block, AvgPool):
        return _pool(block.pooling, 1.0 if block.sums else block.pooling.factor, x, shape, graph)
    if isinstance(block, Upsample):
        scales = graph.constant([1, 1, block.scale_factor, block.scale_factor])
        options = {"mode": "nearest", "nearest_mode": "floor"}
        options["coordinate_transformation_mode"] = "asymmetric"
        return graph.node("Resize", x, "", scales, **options)
    if isinstance(block, Affine):
        return _linear(block.synapse, None, block.quantizer, x, shape, graph)
    if isinstance(block, Block):
        z = _linear(block.synapse, block.norm, block.quantizer, x, shape, graph)
        return _curve(block.unit.sampler, z, axes, graph)
    raise SpikestrapError("there is no rule to write it")


def _linear(
    module: nn.Module,
    norm: Norm | None,
    quantizer: Quantizer | None,
    x: str,
    shape: Shape,
    graph: Graph,
) -> str:
    """A synapse and its norm."""
    if isinstance(module, nn.Sequential):
        for part in module:
            x = _linear(part, None, None, x, shape, graph)
            shape = tuple(part(torch.zeros(1, *shape, dtype=torch.float32)).shape[1:])
        return x
    if isinstance(module, Flatten):
        return _flatten(x, shape, graph)
    if isinstance(module, Pooling):
        factor = module.factor if quantizer is None else float(quantizer.pooling(module))
        return _pool(module, factor, x, shape, graph)
    if isinstance(module, ElementWise):
        both = (module.weight, module.bias)
        weight, bias = both if quantizer is None else quantizer.element_wise(module)
        z = graph.node("Mul", x, graph.constant(numbers(weight)))
        z = graph.node("Add", z, graph.constant(numbers(bias)))
        return z if quantizer is None else _on_grid(z, BIAS, graph)
    if not isinstance(module, Synapse):
        raise SpikestrapError(f"there is no rule to write {type(module).__name__}")
    parts = folded(module, norm) if quantizer is None else quantizer.weights(module, norm)
    return _synapse(module.layer, *parts, x, graph)


def _flatten(x: str, shape: Shape, graph: Graph) -> str:
    return graph.node("Flatten", x, axis=1) if len(shape) > 1 else x


def _pool(pooling: Pooling, factor: float, x: str, shape: Shape, graph: Graph) -> str:
    """Sums of windows times the factor."""
    kernel, stride, padding = pooling.sizes
    sizes = {"kernel_shape": kernel, "strides": stride, "pads": padding * 2}
    if factor * pooling.window == 1:
        return graph.node("AveragePool", x, count_include_pad=1, **sizes)
    # ONNX sums no windows; an average times their size would not be exact.
    channels = shape[0]
    weight = graph.constant(np.full((channels, 1, *kernel), factor))
    return graph.node("Conv", x, weight, group=channels, **sizes)


def _on_grid(x: str, grid: Grid, graph: Graph) -> str:
    """x rounded to the grid, half to even."""
    step, low, high = (graph.constant(value) for value in (grid.step, grid.low, grid.high))
    rounded = graph.node("Round", graph.node("Div", x, step))
    return graph.node("Clip", graph.node("Mul", rounded, step), low, high)


def _synapse(layer: nn.Module, weight: Tensor, bias: Tensor | None, x: str, graph: Graph) -> str:
    given = [weight] if bias is None else [weight, bias]
    parts = [graph.constant(numbers(part)) for part in given]
    if isinstance(layer, nn.Linear):
        return graph.node("Gemm", x, *parts, transB=1)
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        raise SpikestrapError(f"there is no rule to write {type(layer).__name__}")
    before, behind = zeros_around(layer)
    options = {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": before + behind,
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    kind = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
    return graph.node(kind, x, *parts, **options)


def _curve(sampler: AnnSampler, z: str, axes: int, graph: Graph) -> str:
    """The curve: interpolate between the values of a uniform grid, then round to k / T."""
    curves, points = sampler.values.shape
    shape = (curves, *[1] * (axes - 1)) if curves > 1 else ()
    origin, width = (
        graph.constant(numbers(values).reshape(shape)) for values in (sampler.origin, sampler.width)
    )
    row = graph.constant((np.arange(curves) * points).reshape(shape), np.int64)
    table, one = graph.constant(numbers(sampler.values).ravel()), graph.constant(1, np.int64)
    zero, cells, last = (graph.constant(value) for value in (0, points - 1, points - 2))
    place = graph.node("Div", graph.node("Sub", z, origin), width)
    inside = graph.node("Clip", place, zero, cells)
    cell = graph.node("Clip", graph.node("Floor", inside), zero, last)
    at = graph.node("Add", graph.node("Cast", cell, to=graph.onnx.TensorProto.INT64), row)
    left = graph.node("Gather", table, at)
    right = graph.node("Gather", table, graph.node("Add", at, one))
    rise = graph.node("Mul", graph.node("Sub", inside, cell), graph.node("Sub", right, left))
    rates = graph.node("Add", left, rise)
    if not sampler.rounding:
        return rates
    levels, half = graph.constant(sampler.time_steps), graph.constant(0.5)
    counts = graph.node("Floor", graph.node("Add", graph.node("Mul", rates, levels), half))
    return graph.node("Div", counts, levels)
