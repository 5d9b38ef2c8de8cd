"""Checkpoints (state dicts) of lava-dl's bootstrap and slayer networks of CUBA blocks."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import block
from ..block.recurrent import SelfDriven
from ..errors import SpikestrapError, at
from ..files import read_weights
from ..network import Network
from ..norm import MeanOnlyNorm
from ..synapse import ElementWise, Synapse

MAX_BYTES = 2**32
_KEY = re.compile(r"(?P<list>(?:[^.]+\.)*?)(?P<number>\d+)\.(?P<name>.+)")
_DECAYS = ("current_decay", "voltage_decay")
_OTHER = re.compile(r"neuron\.(?!norm\.)|synapse\.(real|imag)\.")
_DECAY_SCALE = 4096  # lava-dl's checkpoints hold decays times this


@torch.no_grad()
def load_state_dict(
    net: Network, path: str | Path, *, input_range: tuple[float, float] = (-1.0, 1.0)
) -> None:
    """Loads the weights, decays and norms of a lava-dl checkpoint into `net`.

    net: the same blocks as lava-dl's, of any precision; what has no synapse, such as Flatten,
    may stand between. Thresholds are not in a checkpoint: give them to the blocks. Its delays go
    to a `Delay` of rounding="down" behind their block.
    input_range: of the pixels on which lava-dl trained. netx, and so `net`, takes [0, 1] and
    lava-dl's input layer then sees [-1, 1]; the Input block is rescaled for that.

    Raises SpikestrapError: the file is damaged, or its blocks are not those of `net`; nothing
    is changed then.
    """
    path = Path(path)
    state = read_weights(path, MAX_BYTES)
    with at(path):
        updates = _updates(net, _by_block(state), input_range)
    for target, value in updates:
        target.copy_(value)


def _by_block(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of each block of the checkpoint's one list of blocks, by their own names."""
    blocks: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    lists = set()
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise SpikestrapError(f"{key!r}: expected a tensor of a numbered block")
        if not torch.isfinite(value).all():
            raise SpikestrapError(f"{key}: expected finite numbers, got NaN or inf")
        lists.add(match["list"])
        blocks[int(match["number"])][match["name"]] = value
    if len(lists) != 1:
        raise SpikestrapError(f"expected one list of blocks, got {sorted(lists)}")
    return [blocks[number] for number in sorted(blocks)]


Update = tuple[Tensor, Tensor]


def _updates(
    net: Network, saved: list[dict[str, Tensor]], input_range: tuple[float, float]
) -> list[Update]:
    rest = [m for m in net.blocks if not isinstance(m, block.Dropout)]
    delays = {m: d for m, d in itertools.pairwise(rest) if isinstance(d, block.Delay)}
    ours = [m for m in rest if isinstance(m, block.Block | block.Affine)]
    if len(ours) != len(saved):
        raise SpikestrapError(
            f"expected {len(ours)} blocks with a synapse, as the network has, got {len(saved)}"
        )
    updates: list[Update] = []
    for number, (module, tensors) in enumerate(zip(ours, saved, strict=True)):
        with at(f"block {number} ({type(module).__name__})"):
            updates += block_updates(module, tensors, input_range, delays.get(module))
    return updates


def block_updates(
    module: block.Block | block.Affine,
    tensors: Mapping[str, Tensor],
    input_range: tuple[float, float] = (-1.0, 1.0),
    delay: block.Delay | None = None,
) -> list[Update]:
    """Which tensors of a block take which values, for the tensors lava-dl has of it, by its names.

    delay: what stands behind the block, where the block itself has none. Raises SpikestrapError
    where they are not those of such a block.
    """
    left = {name: tensor.float() for name, tensor in tensors.items()}
    _refuse_other_neurons(left)
    if isinstance(module, block.Recurrent):
        driven = module.unit.neuron
        assert isinstance(driven, SelfDriven)
        updates = _weights(module.synapse, left, "input_synapse")
        updates += _weights(driven.synapse, left, "recurrent_synapse")
        left.pop("spike_state", None)  # lava-dl saves it and uses it nowhere
    else:
        updates = _synapse(module.synapse, left, input_range)
    if isinstance(module, block.Block):
        updates += _neuron(module, left)
        updates += _delays(module.delay or delay, left)
    else:
        left = {name: t for name, t in left.items() if not name.startswith("neuron.")}
    if left:
        raise SpikestrapError(f"nothing here takes {min(left)!r}")
    return updates


def _synapse(
    synapse: nn.Module, tensors: dict[str, Tensor], input_range: tuple[float, float]
) -> list[Update]:
    if isinstance(synapse, ElementWise):
        low, high = input_range
        # lava-dl has neither where the script gave none, and takes the value itself.
        weight = _shaped(tensors.pop("weight", torch.ones(1)), (), "weight")
        bias = _shaped(tensors.pop("bias", torch.zeros(1)), (), "bias")
        return [(synapse.weight, weight * (high - low)), (synapse.bias, bias + weight * low)]
    if not isinstance(synapse, Synapse):  # a pooling: its weight is fixed, here and there
        tensors.pop("synapse.weight", None)
        return []
    return _weights(synapse, tensors, "synapse")


def _weights(synapse: nn.Module, tensors: dict[str, Tensor], name: str) -> list[Update]:
    """Of what lava-dl calls by that name."""
    assert isinstance(synapse, Synapse)
    layer: Any = synapse.layer
    shape = synapse.weight.shape
    if f"{name}.weight_g" in tensors:
        g = _take(tensors, f"{name}.weight_g").flatten()
        v = _shaped(_take(tensors, f"{name}.weight_v"), shape, f"{name}.weight_v")
    else:
        v = _shaped(_take(tensors, f"{name}.weight"), shape, f"{name}.weight")
        g = v.flatten(1).norm(dim=1)
    g = _shaped(g, (shape[0], *[1] * (len(shape) - 1)), f"{name}.weight_g")
    stored: Any = layer.parametrizations.weight if hasattr(layer, "parametrizations") else None
    if hasattr(stored, "original0"):
        return [(stored.original0, g), (stored.original1, v)]
    norm = v.flatten(1).norm(dim=1).clamp_min(torch.finfo(v.dtype).tiny).view_as(g)
    # Under a mask, what it is laid over.
    return [(layer.weight if stored is None else stored.original, v * (g / norm))]


def _refuse_other_neurons(tensors: Mapping[str, Tensor]) -> None:
    """Raises for those of a resonator, an ALIF or a sigma-delta neuron."""
    known = {f"neuron.{name}" for name in _DECAYS}
    others = [name for name in sorted(tensors) if _OTHER.match(name) and name not in known]
    if others:
        raise SpikestrapError(
            f"only checkpoints of CUBA blocks load, whose neurons have {' and '.join(_DECAYS)}; "
            f"found {others[0]!r}"
        )


def decay_updates(neuron: nn.Module, tensors: dict[str, Tensor]) -> list[Update]:
    """The same of a neuron's decays, which are taken out of lava-dl's tensors of its block."""
    updates: list[Update] = []
    for name in _DECAYS:
        value = _take(tensors, f"neuron.{name}") / _DECAY_SCALE
        target = getattr(neuron, name, None)
        if not isinstance(target, Tensor):
            raise SpikestrapError(f"the network's neuron has no {name}: expected CUBA blocks")
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise SpikestrapError(f"neuron.{name}: expected numbers from 0 to {_DECAY_SCALE}")
        updates.append((target, _shaped(value, target.shape, f"neuron.{name}")))
    return updates


def _neuron(module: block.Block, tensors: dict[str, Tensor]) -> list[Update]:
    neuron = module.unit.neuron
    neuron = neuron.neuron if isinstance(neuron, SelfDriven) else neuron
    updates = decay_updates(neuron, tensors)
    (_, current_decay), _ = updates
    if module.norm is not None and bool((current_decay != 1).any()):
        raise SpikestrapError(
            "lava-dl norms the current, behind its decay, where a norm here stands before it: with "
            f"a norm neuron.current_decay must be {_DECAY_SCALE}"
        )
    for name in [name for name in tensors if name.startswith("neuron.norm.")]:
        if not isinstance(module.norm, MeanOnlyNorm):
            raise SpikestrapError('the checkpoint has a norm: expected norm="mean_only" here')
        target = getattr(module.norm, name.removeprefix("neuron.norm."), None)
        if isinstance(target, Tensor):
            updates.append((target, _shaped(tensors.pop(name), target.shape, name)))
    return updates


def _delays(delay: block.Delay | None, tensors: dict[str, Tensor]) -> list[Update]:
    if "delay.delay" not in tensors:
        return []
    if delay is None or not delay.down:
        raise SpikestrapError(
            "the checkpoint has delays: expected a block of slayer with delay=True, or behind the "
            'block a Delay with rounding="down"'
        )
    value = tensors.pop("delay.delay")
    return [(delay.delay, _shaped(value, delay.delay.shape, "delay.delay"))]


def _take(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise SpikestrapError(f"expected a tensor {name!r}, found none")
    return tensors.pop(name)


def _shaped(value: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """lava-dl's tensors have axes of size 1 behind: the same values in our shape."""
    if tuple(s for s in value.shape if s != 1) != tuple(s for s in shape if s != 1):
        raise SpikestrapError(f"{name}: expected shape {tuple(shape)}, got {tuple(value.shape)}")
    return value.reshape(shape)
