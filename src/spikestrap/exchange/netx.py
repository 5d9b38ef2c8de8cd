"""Lava's `.net` files (HDF5), as lava.lib.dl.netx reads them and lava-dl writes them.

A file holds the groups layer/0, layer/1, ... with a `type` each: input, dense, dense_rec,
conv or flatten, integers that mean what they do in `spikestrap.fixed`, and their neuron:
type CUBA (LOIHI in older files), iDecay, vDecay, vThMant.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .. import fixed
from ..errors import SpikestrapError, at
from ..files import write_file
from .hdf5 import read_tree
from .hdf5_worker import Tree

MAX_LAYERS, MAX_TIME_STEPS = 1000, 2**20
MAX_BYTES = 2**30  # of all weights together
NEURONS = ("CUBA", "LOIHI")


def read(path: str | Path) -> fixed.Network:
    """The network of a `.net` file, which may come from anywhere.

    Raises SpikestrapError: the file is damaged, or holds what `spikestrap.fixed` cannot run.
    """
    path = Path(path)
    try:
        with at(path):
            return from_tree(read_tree(path, MAX_BYTES))
    except OSError as error:
        raise SpikestrapError(f"{path}: cannot be read: {error.strerror or error}") from error


def from_tree(tree: Tree) -> fixed.Network:
    """The network of a file's groups and arrays, as `hdf5.read_tree` gives them."""
    found = _group(tree, "layer")
    if not 1 <= len(found) <= MAX_LAYERS:
        raise SpikestrapError(f"layer: expected 1 to {MAX_LAYERS} layers, got {len(found)}")
    layers: list[fixed.Layer] = []
    for number in range(len(found)):
        with at(f"layer/{number}"):
            group = found.get(str(number))
            if not isinstance(group, dict):
                raise SpikestrapError("expected a group, but not there")
            _read_layer(group, layers)
    return fixed.Network(layers, **_read_simulation(tree))


def _read_simulation(tree: Tree) -> dict[str, Any]:
    if "simulation" not in tree:
        return {}
    group = _group(tree, "simulation")
    steps = _integer(group, "tSample", 0)
    return {
        "pipelined": bool(_integer(group, "pipelined", 0)),
        "time_steps": steps if 1 <= steps <= MAX_TIME_STEPS else None,
    }


def _read_layer(group: Tree, layers: list[fixed.Layer]) -> None:
    kind = _text(group, "type")
    if kind == "input":
        if layers:
            raise SpikestrapError("an input can only be the first layer")
        neuron = _read_neuron(group) if "neuron" in group else None
        weight, bias = _integer(group, "weight", 64), _integer(group, "bias", 0)
        layers.append(
            fixed.Input(_shape(group), neuron, _read_delay(group), weight=weight, bias=bias)
        )
        return
    if kind in ("dense", "dense_rec"):
        dense = _read_dense(group, recurrent=kind == "dense_rec")
        if not layers:
            layers.append(fixed.Input((dense.weight.shape[1],)))
        made: fixed.Layer = dense
    elif kind == "conv":
        made = _read_conv(group)
    elif kind == "flatten":
        if not layers:
            raise SpikestrapError("a flatten needs a layer before it")
        made = fixed.Flatten((layers[-1].neurons,))
    else:
        raise SpikestrapError(
            f"expected a layer of type input, dense, dense_rec, conv or flatten, got {kind!r}"
        )
    if not layers:
        raise SpikestrapError(f"before a {kind} an input layer is needed, which says its shape")
    layers.append(made)


def _read_dense(group: Tree, recurrent: bool) -> fixed.Dense:
    neurons = math.prod(_shape(group))
    return fixed.Dense(
        (neurons,),
        _read_neuron(group) if "neuron" in group else None,
        _read_delay(group),
        _weight(group, "weight", axes=2, rows=neurons),
        _read_bias(group, neurons),
        _weight(group, "weight_rec", axes=2, rows=neurons) if recurrent else None,
    )


def _read_conv(group: Tree) -> fixed.Conv:
    shape = _shape(group)
    return fixed.Conv(
        shape,
        _read_neuron(group) if "neuron" in group else None,
        _read_delay(group),
        _weight(group, "weight", axes=4, rows=shape[0]),
        _read_bias(group, shape[0]),
        stride=_pair(group, "stride"),
        padding=_pair(group, "padding"),
        dilation=_pair(group, "dilation"),
        groups=_integer(group, "groups", 1),
    )


def _read_neuron(layer: Tree) -> fixed.Neuron:
    group = _group(layer, "neuron")
    kind = _text(group, "type")
    if kind not in NEURONS:
        raise SpikestrapError(f"expected a neuron of type {' or '.join(NEURONS)}, got {kind!r}")
    for name, wanted in (("refDelay", 1), ("gradedSpike", 0), ("wgtExp", 0), ("weight_exp", 0)):
        value = _integer(group, name, wanted)
        if value != wanted:
            raise SpikestrapError(f"neuron/{name}: expected {wanted}, got {value}")
    return fixed.Neuron(
        threshold=_one_or_channels(group, "vThMant"),
        current_decay=_one_or_channels(group, "iDecay"),
        voltage_decay=_one_or_channels(group, "vDecay"),
    )


def _one_or_channels(group: Tree, name: str) -> np.ndarray:
    values = _array(group, name).reshape(-1)
    return values[0] if values.size == 1 else values


def _pair(group: Tree, name: str) -> tuple[int, int]:
    values = _array(group, name).reshape(-1)
    if values.size not in (1, 2) or np.abs(values).max() > 2**31:
        raise SpikestrapError(f"{name}: expected one number or two, got {values[:4].tolist()}")
    return int(values[0]), int(values[-1])


def _read_delay(group: Tree) -> np.ndarray | None:
    return _array(group, "delay").reshape(-1) if "delay" in group else None


def _read_bias(group: Tree, channels: int) -> np.ndarray | None:
    if "bias" not in group:
        return None
    bias = np.trunc(_array(group, "bias").reshape(-1))
    if bias.size not in (1, channels):
        raise SpikestrapError(f"bias: expected 1 or {channels} values, got {bias.size}")
    return np.broadcast_to(bias, channels)


def _weight(group: Tree, name: str, axes: int, rows: int) -> np.ndarray:
    """Weights as netx takes them: cut toward zero; dense ones may come flat."""
    values = np.trunc(_array(group, name))
    if axes == 2 and values.size % rows == 0:
        values = values.reshape(rows, -1)
    elif axes == 4 and values.ndim == 5 and values.shape[4] == 1:
        values = values[..., 0]
    if values.ndim != axes or values.size == 0:
        raise SpikestrapError(
            f"{name}: expected {axes} axes and {rows} rows, got shape {values.shape}"
        )
    return values


def _shape(group: Tree) -> tuple[int, ...]:
    shape = _array(group, "shape").reshape(-1)
    if shape.size not in (1, 3) or shape.min() < 1 or shape.max() > fixed.MAX_NEURONS:
        raise SpikestrapError(f"shape: expected (C,) or (C, H, W), got {shape[:4].tolist()}")
    return tuple(int(size) for size in shape)


def _get(group: Tree, name: str) -> Any:
    if name not in group:
        raise SpikestrapError(f"{name}: expected, but not there")
    return group[name]


def _group(group: Tree, name: str) -> Tree:
    found = _get(group, name)
    if not isinstance(found, dict):
        raise SpikestrapError(f"{name}: expected a group")
    return found


def _array(group: Tree, name: str) -> np.ndarray:
    """Finite numbers, float64."""
    values = _get(group, name)
    array = np.asarray(None if isinstance(values, dict) else values)
    if array.dtype.kind not in "iufb" or array.size == 0:
        raise SpikestrapError(f"{name}: expected numbers")
    with np.errstate(invalid="ignore"):  # of NaN of a lower precision
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise SpikestrapError(f"{name}: expected finite numbers, got NaN or inf")
    return array


def _integer(group: Tree, name: str, default: int) -> int:
    """One whole number, cut toward zero; `default` where there is none."""
    if name not in group:
        return default
    array = _array(group, name)
    if array.size != 1 or abs(array.item()) > 2**53:
        raise SpikestrapError(f"{name}: expected one number, got {array.shape} of them")
    return int(array.item())


def _text(group: Tree, name: str) -> str:
    value = _get(group, name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, str):
        raise SpikestrapError(f"{name}: expected a text")
    return value[:80].rstrip("\0")


def write(net: fixed.Network, path: str | Path) -> None:
    """Writes a `.net` file that netx loads, whole or not at all.

    Raises SpikestrapError: netx could not load it or would
    run it differently, with the reason; or the file cannot be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for number, layer in enumerate(net.layers):
            with at(f"layer {number} ({type(layer).__name__}): a .net file cannot hold it"):
                write_layer(file.create_group(f"layer/{number}"), layer)
        file["simulation/Ts"] = 1
        if net.time_steps is not None:
            file["simulation/tSample"] = net.time_steps
        if net.pipelined:
            file["simulation/pipelined"] = 1
    write_file(Path(path), buffer.getvalue())


def write_layer(group: h5py.Group, layer: fixed.Layer) -> None:
    """Writes one layer into its group. Raises SpikestrapError for what netx could not run."""
    kinds = {
        fixed.Input: "input",
        fixed.Flatten: "flatten",
        fixed.Dense: "dense",
        fixed.Conv: "conv",
    }
    kind = kinds[type(layer)]
    if isinstance(layer, fixed.Dense) and layer.recurrent is not None:
        kind = "dense_rec"
    group.create_dataset("type", (1,), "S10", [kind.encode()])
    group["shape"] = np.array(layer.shape, np.int64)
    if isinstance(layer, fixed.Input) and layer.neuron is not None:
        group["weight"] = np.array([layer.weight], np.float32)
        group["bias"] = np.array([layer.bias], np.float32)
    elif isinstance(layer, fixed.Dense):
        group["inFeatures"], group["outFeatures"] = layer.weight.shape[1], layer.neurons
        group["weight"] = layer.weight.astype(np.float32)
        if layer.recurrent is not None:
            group["weight_rec"] = layer.recurrent.astype(np.float32)
    elif isinstance(layer, fixed.Conv):
        if layer.neuron is None:
            raise SpikestrapError("netx reads a convolution only with a neuron")
        group["inChannels"] = layer.weight.shape[1] * layer.groups
        group["outChannels"] = layer.shape[0]
        group["kernelSize"] = np.array(layer.weight.shape[2:], np.int64)
        for name in ("stride", "padding", "dilation"):
            group[name] = np.array(getattr(layer, name), np.int64)
        group["groups"] = layer.groups
        group["weight"] = layer.weight.astype(np.float32)
    bias = getattr(layer, "bias", None)
    if not isinstance(layer, fixed.Input) and bias is not None:
        group["bias"] = bias.astype(np.float32)
    if layer.delay is not None and np.any(layer.delay):  # zeros change how netx runs dense_rec
        _check_delay(layer, int(layer.delay.max()))
        group["delay"] = np.broadcast_to(layer.delay, layer.shape[0]).astype(np.float32)
    if layer.neuron is not None:
        _write_neuron(group.create_group("neuron"), layer.neuron)


def _check_delay(layer: fixed.Layer, longest: int) -> None:
    """Raises unless netx's delay, of what goes into a dense layer, is one of what comes out."""
    if not isinstance(layer, fixed.Dense) or layer.neuron is None:
        problem = "netx delays the spikes of Dense blocks alone"
    elif layer.recurrent is not None:
        problem = "netx delays what a Recurrent block hears of itself as well"
    elif layer.bias is not None and np.any(layer.bias):
        problem = "netx delays what goes into a Dense block, but not its bias or norm"
    else:
        return
    raise SpikestrapError(
        f"{problem}: got a delay of up to {longest} steps. Put the Delay behind a Dense "
        "block without bias and norm, or run it by fixed.from_network"
    )


def _write_neuron(group: h5py.Group, neuron: fixed.Neuron) -> None:
    if neuron.reset != "zero":
        raise SpikestrapError(
            f'Lava\'s LIF resets to zero; got reset={neuron.reset!r}. Train with reset="zero", '
            "as the recipes digits-mlp-loihi and mnist-mlp-loihi do"
        )
    if np.any(neuron.v_init):
        raise SpikestrapError("netx starts every membrane at 0; got another v_init")
    names = (("iDecay", "current_decay", 1), ("vDecay", "voltage_decay", 0))
    for name, ours, low in (*names, ("vThMant", "threshold", 1)):
        values = np.unique(getattr(neuron, ours))
        if values.size != 1:
            raise SpikestrapError(f"Lava's LIF has one {ours} for all neurons of a layer")
        value = int(values[0])
        if ours != "threshold" and not low <= value <= 4095 + low:
            raise SpikestrapError(
                f"{ours} {value}: the chip's register holds {low} to {4095 + low}"
            )
        group[name] = value
    group["refDelay"] = 1
    group["gradedSpike"] = False
    group["type"] = "CUBA"
