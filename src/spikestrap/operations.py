"""What an inference costs in operations, as an SNN and as an ANN: an estimate.

A spike costs one addition for each synapse that it reaches (a synaptic operation), a neuron
one update a step; an ANN costs a multiplication and addition (MAC) for each weight use. The
energies are those of 32-bit float arithmetic in 45 nm: addition 0.9 pJ, multiplication 3.7 pJ
(Horowitz, Computing's energy problem, ISSCC 2014). Memory and communication, which dominate
on real chips, are left out: numbers to compare networks with, not to predict a chip's power.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import fixed
from .block import Affine, AvgPool, Block, Delay
from .block.recurrent import SelfDriven
from .errors import SpikestrapError
from .evaluating import evaluating
from .network import Network
from .norm import Norm
from .quantize import Quantizer
from .random_state import random_state_kept
from .routine import Mode
from .synapse import ElementWise, Pooling, Synapse
from .timeaxis import has_time
from .unit import Unit

ADDITION_PJ, MAC_PJ = 0.9, 4.6


@dataclass(frozen=True)
class Cost:
    """Counts for one inference, the mean over the samples.

    time_steps: T. spikes: that all neurons fired over all steps. synaptic_operations: synapses
    that they reach; where a delay has one arrive too late, none. neuron_updates: neurons times
    steps. macs: of the SNN, for a static input, which is no spikes: once. ann_macs: of the same
    network run once as an ANN.
    """

    time_steps: int
    spikes: float
    synaptic_operations: float
    neuron_updates: float
    macs: float
    ann_macs: float

    @property
    def snn_energy(self) -> float:
        """Arithmetic of the SNN in pJ; an update counts as one MAC."""
        return ADDITION_PJ * self.synaptic_operations + MAC_PJ * (self.neuron_updates + self.macs)

    @property
    def ann_energy(self) -> float:
        """Arithmetic of the ANN in pJ."""
        return MAC_PJ * self.ann_macs

    def to_dict(self) -> dict[str, float]:
        """All numbers by name, the energies as snn_energy_pj and ann_energy_pj."""
        return {
            **asdict(self),
            "snn_energy_pj": self.snn_energy,
            "ann_energy_pj": self.ann_energy,
        }


@torch.no_grad()
def cost(net: Network | fixed.Network, x: Tensor, time_steps: int | None = None) -> Cost:
    """Counts the operations of a network on the inputs x (N, ...) or (T, N, ...).

    With time, whole numbers from 0 on are frames of events: where x meets weights first, or a
    pooling, a count of k is k events. Other values, and what an Input block gets, count once each.

    time_steps: T of a `fixed.Network`, None for its own; any other network has its own. Raises
    SpikestrapError where they do not fit, and for what is not counted: weights that are not in
    spikestrap's blocks, as in a module of your own, or used outside them, as in `block.Residual`.

    >>> import spikestrap as ss
    >>> neuron = dict(threshold=1.0)
    >>> net = ss.Network(ss.block.cuba.Input(neuron), ss.block.cuba.Affine(neuron, 2, 3),
    ...     time_steps=4)
    >>> found = cost(net, torch.tensor([[0.0, 1.5]]))       # the second neuron spikes always
    >>> found.spikes, found.synaptic_operations, found.neuron_updates, found.ann_macs
    (4.0, 12.0, 8.0, 8.0)
    """
    if isinstance(net, fixed.Network):
        return _of_fixed(net, x, time_steps)
    if not isinstance(net, Network):
        raise SpikestrapError(
            f"cost: expected a Network or a fixed.Network, whose synapses are known, got a "
            f"{type(net).__name__}"
        )
    steps = net.time_steps if net.time_steps is not None else x.shape[0]
    if time_steps not in (None, steps):
        raise SpikestrapError(f"time_steps: the network runs {steps} steps, got {time_steps}")
    _refuse_uncounted(net)
    names = ("spikes", "synaptic_operations", "neuron_updates", "macs", "ann_macs")
    counts = dict.fromkeys(names, 0.0)
    with evaluating(net), _counting(net, x, counts):
        net(x, Mode.SNN)
    samples = x.shape[0] if net.time_steps is not None else x.shape[1]
    return Cost(steps, **{name: count / samples for name, count in counts.items()})


@contextmanager
def _counting(net: Network, x: Tensor, counts: dict[str, float]) -> Iterator[None]:
    calls = iter(_calls(net, x))
    # What poolings gave, and the same with their windows' spikes counted.
    pooled: list[tuple[Tensor, Tensor]] = []
    inside = False  # a block

    def gets_input(module: nn.Module) -> bool:
        called, meets = next(calls, (None, False))
        if called is not module:
            raise SpikestrapError("cost: expected the same blocks to run whatever the spikes are")
        return meets

    def of_pooling(x: Tensor) -> Tensor | None:
        for given, sums in reversed(pooled):
            if given.numel() == x.numel() and bool((given.reshape(x.shape) == x).all()):
                return sums.reshape(x.shape)
        return None

    def arrived_at(x: Tensor, may_count: bool) -> Tensor:
        sums = of_pooling(x)
        if sums is not None:
            return sums
        return x.float() if may_count and _are_counts(x) else (x != 0).float()

    def on_pool(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # A window's spikes reach what is behind it one by one: a chip has no place to add them up.
        assert isinstance(module, AvgPool)
        meets = gets_input(module)
        arrived = arrived_at(args[0], meets and net.time_steps is None)
        pooled.append((output, module.pooling.sums(arrived)))

    def on_delay(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        assert isinstance(module, Delay)
        sums = of_pooling(args[0])
        if sums is not None:
            pooled.append((output, module.forward(sums)))

    def on_block(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal inside
        assert isinstance(module, Block | Affine)
        inside, x, meets = True, args[0], gets_input(module)
        if not has_time(x):
            raise SpikestrapError(
                f"cost: expected spikes (T, N, ...) at {type(module).__name__}, as it is called "
                f"as an SNN, got shape {tuple(x.shape)}"
            )
        macs = x.shape[1] * _uses(module, x.new_ones(x.shape[2:], dtype=torch.float64))
        counts["ann_macs"] += macs
        # A static input is no spikes: the block computes with numbers, and once.
        if meets and net.time_steps is not None and bool((x == x[:1]).all()):
            counts["macs"] += macs
            return
        may_count = meets and net.time_steps is None and not isinstance(module.synapse, ElementWise)
        counts["synaptic_operations"] += _uses(module, _over_all(arrived_at(x, may_count)))

    def behind_block(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal inside
        inside = False

    def on_synapse(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not inside:
            raise SpikestrapError(
                f"cost: a {type(module).__name__} is not counted where it is called outside its "
                "block; expected block(x, mode=mode)"
            )

    def on_unit(module: nn.Module, args: tuple[Any, ...], spikes: Tensor) -> None:
        # Here, as a block may send them on late, some of them too late.
        assert isinstance(module, Unit)
        driven = module.neuron
        if isinstance(driven, SelfDriven):
            own = partial(_uses_of, driven.synapse, None, driven.quantizer)
            counts["ann_macs"] += spikes.shape[1] * own(torch.ones_like(spikes[0, 0]))
            counts["synaptic_operations"] += own(_over_all(spikes != 0))
        counts["spikes"] += float(spikes.count_nonzero())
        counts["neuron_updates"] += spikes.numel()

    before = [(Block | Affine, on_block), (Synapse | ElementWise, on_synapse)]
    behind = [
        (Unit, on_unit),
        (AvgPool, on_pool),
        (Delay, on_delay),
        (Block | Affine, behind_block),
    ]
    with _hooked(net, before, behind):
        yield


def _calls(net: Network, x: Tensor) -> list[tuple[nn.Module, bool]]:
    """The calls of blocks and poolings, in turn, and whether each gets the input and no spikes.

    Found with NaN in place of spikes, in a pass of one sample: where it arrives, they do. Of an
    input with time what a pooling gives is no longer the input's counts.
    """
    static = net.time_steps is not None
    marked = (Unit, Block) if static else (Unit, Block, AvgPool)
    calls: list[tuple[nn.Module, bool]] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls.append((module, not _has_nan(args[0])))

    def mark(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # Also what a delay lets nothing through of.
        if isinstance(module, marked) or any(map(_has_nan, args)):
            return tuple(map(_nan, output)) if isinstance(output, tuple) else _nan(output)
        return None

    before = [(Block | Affine | AvgPool, note)]
    with random_state_kept(x.device), _hooked(net, before, [(nn.Module, mark)]):
        net(x[:1] if static else x[:, :1], Mode.SNN)
    return calls


def _has_nan(x: Any) -> bool:
    return isinstance(x, Tensor) and bool(x.isnan().any())


def _nan(x: Any) -> Any:
    return torch.full_like(x, torch.nan) if isinstance(x, Tensor) and x.is_floating_point() else x


Hooks = list[tuple[Any, Callable[..., Any]]]


@contextmanager
def _hooked(net: Network, before: Hooks, behind: Hooks) -> Iterator[None]:
    """Has modules of a kind call functions before and behind their forward."""
    handles = []
    for module in net.modules():
        handles += [
            module.register_forward_pre_hook(f) for kind, f in before if isinstance(module, kind)
        ]
        handles += [
            module.register_forward_hook(f) for kind, f in behind if isinstance(module, kind)
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse_uncounted(module: nn.Module, name: str = "") -> None:
    """Raises where a module holds parameters and is neither a block nor a part of one."""
    if isinstance(module, Block | Affine | Delay | Unit):
        return
    if any(True for _ in module.parameters(recurse=False)):
        raise SpikestrapError(
            f"cost: parameters of {name or 'the network'} ({type(module).__name__}) are not "
            "counted; expected weights in blocks of spikestrap's"
        )
    for part, child in module.named_children():
        _refuse_uncounted(child, f"{name}.{part}" if name else part)


def _over_all(events: Tensor) -> Tensor:
    """Sums over steps and samples (C, ...) of events (T, N, C, ...), in float64."""
    return events.sum((0, 1), dtype=torch.float64)


def _are_counts(x: Tensor) -> bool:
    return not x.is_complex() and bool(((x >= 0) & (x % 1 == 0)).all())


def _uses(module: Block | Affine, events: Tensor) -> float:
    """How many times a weight other than 0 is used by so many events (C, ...) at each input."""
    return _uses_of(module.synapse, getattr(module, "norm", None), module.quantizer, events)


def _uses_of(
    synapse: nn.Module, norm: Norm | None, quantizer: Quantizer | None, events: Tensor
) -> float:
    events = events.double()  # which autocast leaves as they are
    if isinstance(synapse, ElementWise):
        return float(events.sum())
    if isinstance(synapse, Pooling):
        return float(synapse.sums(events[None]).sum())
    if not isinstance(synapse, Synapse):
        raise SpikestrapError(f"there is no rule to count a {type(synapse).__name__}")
    weight = synapse.weight
    if quantizer is not None:
        weight, _ = quantizer.weights(synapse, norm)
    connected = (weight != 0).double()
    layer = synapse.layer
    if isinstance(layer, nn.ConvTranspose2d):
        size: Any = (layer.stride, layer.padding, layer.output_padding)
        size += (layer.groups, layer.dilation)
        return float(F.conv_transpose2d(events[None], connected, None, *size).sum())
    return float(synapse.run(events[None], connected, None).sum())


def _of_fixed(net: fixed.Network, x: Tensor, time_steps: int | None) -> Cost:
    time_steps = net.time_steps if time_steps is None else time_steps
    if time_steps is None:
        raise SpikestrapError("time_steps: expected a number, the network has none of its own")
    held = net.layers[0].neuron is not None
    samples = x.shape[0] if held else x.shape[1]
    fired = net.spikes(x, time_steps, delayed=False)
    before = None
    if not held:
        events = x.detach().to("cpu", torch.uint8).reshape(time_steps, samples, -1)
        before = _sums(net.delayed(net.layers[0], events.numpy()))
    shape = net.layers[0].shape
    total = dict.fromkeys(("spikes", "synaptic_operations", "neuron_updates", "macs"), 0.0)
    ann_macs = 0.0
    for number, layer in enumerate(net.layers):
        if isinstance(layer, fixed.Conv | fixed.Dense):
            reached = _fan_out(layer, shape)
            assert before is not None
            total["synaptic_operations"] += float(before @ reached)
            ann_macs += float(reached.sum())
        elif isinstance(layer, fixed.Input) and held:
            total["macs"] += samples * layer.neurons
            ann_macs += layer.neurons
        if number in fired:
            spikes = fired[number].reshape(time_steps, samples, -1)
            own, before = _sums(spikes), _sums(net.delayed(layer, spikes))
            total["spikes"] += float(own.sum())
            total["neuron_updates"] += samples * time_steps * layer.neurons
            if isinstance(layer, fixed.Dense) and layer.recurrent is not None:
                reached = np.count_nonzero(layer.recurrent, axis=0).astype(np.float64)
                total["synaptic_operations"] += float(own @ reached)
                ann_macs += float(reached.sum())
        shape = layer.shape
    counts = {name: count / samples for name, count in total.items()}
    return Cost(time_steps, **counts, ann_macs=ann_macs)


def _sums(spikes: np.ndarray) -> np.ndarray:
    """Of each neuron: spikes (T, N, M) to float64 (M,)."""
    total: np.ndarray = spikes.sum((0, 1), dtype=np.float64)
    return total


def _fan_out(layer: fixed.Conv | fixed.Dense, shape: tuple[int, ...]) -> np.ndarray:
    """Synapses with a weight other than 0 behind each input, float64 (M,)."""
    if isinstance(layer, fixed.Dense):
        return np.count_nonzero(layer.weight, axis=0).astype(np.float64)
    connected = torch.from_numpy((layer.weight != 0).astype(np.float64))
    inputs = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
    size = (layer.stride, layer.padding, layer.dilation, layer.groups)
    with torch.enable_grad():
        outputs = F.conv2d(inputs, connected, None, *size).sum()
    return torch.autograd.grad(outputs, inputs)[0].numpy().reshape(-1)
