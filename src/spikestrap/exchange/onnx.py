"""The network as an ANN in ONNX: inputs to logits, the curves as table look-ups.

What is written is ANN mode: no time, no spikes, every unit its fitted transfer curve. It runs
wherever ONNX does. Needs the package `onnx`, the extra of that name.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__ as _version
from ..ann_sampler import AnnSampler
from ..block import AvgPool, Block, Dropout, Flatten, Upsample
from ..block.base import Affine
from ..errors import NotFittedError, SpikestrapError
from ..network import Network
from ..norm import Norm
from ..routine import Mode
from ..synapse import ElementWise, Pooling, Synapse

# Old enough for every runtime in use; Resize took its present form in 13.
_OPSET, _IR = 17, 8
_CLOSE = 1e-4

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def write(
    net: Network, path: str | os.PathLike[str], *, input_shape: Sequence[int] | None = None
) -> None:
    """Writes the network in ANN mode, evaluation, as an ONNX file: `input` to `logits`.

    Both are float32 with a free batch axis: (N, C) or (N, C, H, W) to (N, out). Rates are
    rounded to k / T where the curve rounds. input_shape: one input, where the first block does
    not say it. Samples that no fit has used are fitted for the file, as in ANN mode; the
    network stays as it is.

    The file is read again and run by onnx's reference beside the network, block by block; if
    they differ, SpikestrapError is raised and no file is left. So it is without the package
    onnx, for blocks that are not the package's, and, as NotFittedError, before any fit.

    >>> import tempfile, spikestrap as ss
    >>> neuron = dict(threshold=1.0, voltage_decay=0.1)
    >>> dense, readout = ss.block.lif.Dense(neuron, 64, 32), ss.block.lif.Affine(neuron, 32, 10)
    >>> net = ss.Network(dense, readout, time_steps=8)
    >>> _ = net(4 * torch.rand(16, 64), ss.Mode.SAMPLE)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(net, f"{folder}/net.onnx")
    ...     Path(f"{folder}/net.onnx").is_file()
    True
    """
    onnx = _package()
    if not isinstance(net, Network):
        raise SpikestrapError(f"ONNX: expected a Network, got {type(net).__name__}")
    path = Path(path)
    model = copy.deepcopy(net).cpu().float().eval()
    shape = _input_shape(model, input_shape)
    graph = _Graph(onnx)
    ends = _blocks(model, shape, graph)
    made = graph.model(shape, ends)
    try:
        handle, name = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    except OSError as error:
        raise SpikestrapError(f"ONNX: cannot write {path}: {error.strerror}") from None
    part = Path(name)
    try:
        os.close(handle)
        part.write_bytes(made.SerializeToString())
        _check(onnx, part, model, shape, ends)
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    except OSError as error:
        raise SpikestrapError(f"ONNX: cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _package() -> Any:
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise SpikestrapError(
            f"ONNX files need the package onnx ({error}): pip install 'spikestrap[onnx]'"
        ) from None
    return onnx


class _Graph:
    """Collects nodes and constants; each call gives the name of a tensor."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.prefix = ""

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"{self.prefix}constant{len(self.constants)}"
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.prefix}{kind.lower()}{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        )
        return name

    def model(self, shape: Shape, ends: Sequence[tuple[str, Shape]]) -> Any:
        """The model from `input` to the last of the ends, which becomes `logits`."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        last, out = ends[-1]
        self.nodes.append(helper.make_node("Identity", [last], ["logits"], name="logits"))
        graph = helper.make_graph(
            self.nodes,
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
            producer_version=_version,
        )


def _input_shape(net: Network, given: Sequence[int] | None) -> Shape:
    if given is not None:
        shape = tuple(given)
        if len(shape) not in (1, 3) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise SpikestrapError(f"ONNX: input_shape must be (C,) or (C, H, W), got {given!r}")
        return shape
    for block in net.blocks:
        synapse = getattr(block, "synapse", None)
        if isinstance(synapse, Synapse) and synapse.feature_axes == 1:
            return (synapse.channels_in,)
        if not isinstance(synapse, ElementWise) and not isinstance(block, Dropout):
            break
    raise SpikestrapError(
        "ONNX: the shape of one input does not follow from the first block: "
        "pass input_shape, (C,) or (C, H, W), without N"
    )


def _blocks(model: Network, shape: Shape, graph: _Graph) -> list[tuple[str, Shape]]:
    """Adds every block; returns the name and shape of what each gives."""
    ends = []
    x, rates = "input", torch.zeros(1, *shape)
    for number, block in enumerate(model.blocks):
        graph.prefix = f"block{number}_"
        try:
            x = _block(block, x, rates.ndim - 1, graph)
            rates = _rates(block, rates)
        except SpikestrapError as error:
            where = f"ONNX: block {number} ({type(block).__name__}): {error}"
            raise type(error)(where) from error
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise SpikestrapError(
                f"ONNX: block {number} ({type(block).__name__}) does not take an input of shape "
                f"{tuple(rates.shape[1:])}: {reason}"
            ) from None
        ends.append((x, tuple(rates.shape[1:])))
    return ends


@torch.no_grad()
def _rates(block: nn.Module, x: Tensor) -> Tensor:
    out = block(x, mode=Mode.ANN)
    rates: Tensor = out[0] if isinstance(out, tuple) else out
    return rates


def _block(block: nn.Module, x: str, axes: int, graph: _Graph) -> str:
    if isinstance(block, Dropout):
        return x  # at rest outside training
    if isinstance(block, AvgPool):
        return _linear(block.pooling, x, None, graph)
    if isinstance(block, Affine):
        return _linear(block.synapse, x, None, graph)
    if isinstance(block, Flatten):
        return graph.node("Flatten", x, axis=1) if axes > 1 else x
    if isinstance(block, Upsample):
        scales = graph.constant([1, 1, block.scale_factor, block.scale_factor])
        options = {"mode": "nearest", "nearest_mode": "floor"}
        options["coordinate_transformation_mode"] = "asymmetric"
        return graph.node("Resize", x, "", scales, **options)
    if not isinstance(block, Block):
        raise SpikestrapError("there is no rule to write it")
    sampler = block.unit.sampler
    if sampler.pending:
        sampler.fit()
    return _curve(sampler, _linear(block.synapse, x, block.norm, graph), axes, graph)


def _linear(module: nn.Module, x: str, norm: nn.Module | None, graph: _Graph) -> str:
    if isinstance(module, nn.Sequential):
        for part in module:
            x = _linear(part, x, None, graph)
        return x
    if isinstance(module, Flatten):
        return graph.node("Flatten", x, axis=1)
    if isinstance(module, Pooling):
        kernel, stride, padding = (
            (size,) * 2 if isinstance(size, int) else tuple(size)
            for size in (module.pool.kernel_size, module.pool.stride, module.pool.padding)
        )
        sizes = {"kernel_shape": kernel, "strides": stride, "pads": padding * 2}
        y = graph.node("AveragePool", x, count_include_pad=1, **sizes)
        return y if module.factor == 1 else graph.node("Mul", y, graph.constant(module.factor))
    if isinstance(module, ElementWise):
        weight, bias = (graph.constant(_numbers(p)) for p in (module.weight, module.bias))
        return graph.node("Add", graph.node("Mul", x, weight), bias)
    if not isinstance(module, Synapse):
        raise SpikestrapError(f"there is no rule to write {type(module).__name__}")
    return _synapse(module, x, norm, graph)


def _synapse(synapse: Synapse, x: str, norm: nn.Module | None, graph: _Graph) -> str:
    layer = synapse.layer
    weight = synapse.weight.detach().double()
    bias = layer.bias.detach().double() if isinstance(layer.bias, Tensor) else None
    turned = isinstance(layer, nn.ConvTranspose2d)
    if norm is not None:
        if not isinstance(norm, Norm) or (turned and layer.groups != 1):
            raise SpikestrapError(f"the norm {type(norm).__name__} cannot be folded into it")
        scale, shift = (part.detach().double() for part in norm.folded())
        # A transposed convolution has its outputs second.
        weight = weight * (scale.view(1, -1, 1, 1) if turned else _along(scale, weight.ndim))
        bias = shift if bias is None else bias * scale + shift
    parts = [graph.constant(_numbers(weight))]
    if bias is not None:
        parts.append(graph.constant(_numbers(bias)))
    if isinstance(layer, nn.Linear):
        return graph.node("Gemm", x, *parts, transB=1)
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        raise SpikestrapError(f"there is no rule to write {type(layer).__name__}")
    if isinstance(layer.padding, str):
        raise SpikestrapError(f"padding must be given in numbers, got {layer.padding!r}")
    options = {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": tuple(layer.padding) * 2,
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    return graph.node("ConvTranspose" if turned else "Conv", x, *parts, **options)


def _along(scale: Tensor, axes: int) -> Tensor:
    return scale.view(-1, *[1] * (axes - 1))


def _curve(sampler: AnnSampler, z: str, axes: int, graph: _Graph) -> str:
    """The curve: interpolate between the values of a uniform grid, then round to k / T."""
    if not int(sampler.fitted):
        raise NotFittedError(
            "its curve was never fitted: run some batches in Mode.SAMPLE, then one in Mode.FIT"
        )
    curves, points = sampler.values.shape
    shape = (curves, *[1] * (axes - 1)) if curves > 1 else ()
    origin, width = (
        graph.constant(_numbers(values).reshape(shape))
        for values in (sampler.origin, sampler.width)
    )
    row = graph.constant((np.arange(curves) * points).reshape(shape), np.int64)
    table, one = graph.constant(_numbers(sampler.values).ravel()), graph.constant(1, np.int64)
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


def _numbers(values: Tensor) -> Array:
    array = values.detach().float().numpy()
    if not np.all(np.isfinite(array)):
        raise SpikestrapError("it holds NaN or inf; expected finite numbers")
    return array


def _check(
    onnx: Any, path: Path, model: Network, shape: Shape, ends: Sequence[tuple[str, Shape]]
) -> None:
    """Runs the file; every block of the network gets what the file's block before gave.

    A rate that lies between two multiples of 1 / T may be rounded to either, in few places.
    """
    made = onnx.load_model_from_string(path.read_bytes())
    onnx.checker.check_model(made)
    names = list(dict.fromkeys(name for name, _ in ends if name != "input"))
    made.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    strength = 2.0 ** torch.arange(-3, 5).view(-1, *[1] * len(shape))
    x = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0)) * strength
    found = onnx.reference.ReferenceEvaluator(made).run(["logits", *names], {"input": x.numpy()})
    values = {"input": x, **{n: torch.tensor(v) for n, v in zip(names, found[1:], strict=True)}}
    before = "input"
    for number, (block, (name, _)) in enumerate(zip(model.blocks, ends, strict=True)):
        expected, got = _rates(block, values[before]), values[name]
        off = (got - expected).abs()
        step = 0.0
        if isinstance(block, Block) and block.unit.sampler.rounding:
            step = 1 / block.unit.sampler.time_steps
        wrong = off > _CLOSE * expected.abs().max().clamp(min=1)
        if float(off.max()) > step + _CLOSE * float(expected.abs().max().clamp(min=1)) or (
            float(wrong.float().mean()) > 0.01
        ):
            raise SpikestrapError(
                f"ONNX: what block {number} ({type(block).__name__}) gives in the file differs "
                f"from the network's by {float(off.max()):g}"
            )
        before = name
