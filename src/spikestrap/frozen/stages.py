"""What the blocks of a network become: stages, called as `stage(x, time_steps)`.

x is (T, N, features...), or (1, N, features...) where it is held for T steps; spikes are bytes
or float32, images in any memory format. Behind the last neuron x may be how often each of its
neurons fired, (N, features...): all that stands there is linear.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..block import Affine, AvgPool, Block, Dropout, Flatten, Residual, Upsample
from ..errors import SpikestrapError, at
from ..kernel import inference
from ..neuron import Neuron
from ..routine import Mode
from ..synapse import Synapse
from ..timeaxis import has_time, time_mean
from .neurons import Fused, firing
from .synapses import Weigh, weighing


class Stage(ABC):
    """One block, or a part of the way between two.

    alone: whether each sample goes its own way, so that several threads may each run a part of
    the batch. where: what to say of it in an error.
    """

    alone = True
    where = ""

    @abstractmethod
    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        """See the module."""


def stages_of(blocks: Iterable[nn.Module]) -> list[Stage]:
    """One stage a block, in evaluation; totals instead of spikes behind the last neuron.

    >>> import spikestrap as ss
    >>> neuron = ss.neuron.IF(threshold=1.0)
    >>> [type(s).__name__ for s in stages_of([ss.block.Dense(neuron, 5, 4), ss.block.Flatten()])]
    ['Totals', 'Stateless', 'Mean']
    """
    stages = []
    for number, block in enumerate(blocks):
        where = f"block {number} ({type(block).__name__})"
        with at(where):
            stages.append(_stage(block))
        stages[-1].where = where
    linear = 0
    while linear < len(stages) and isinstance(stages[-1 - linear], Readout | Pool | Stateless):
        linear += 1
    end = len(stages) - linear
    last = stages[end - 1] if end else None
    if not isinstance(last, Layer) or not last.sums_up:
        return stages
    readout = next((k for k in range(end, len(stages)) if isinstance(stages[k], Readout)), None)
    # Divided as late as can be: sums of spikes are whole numbers, exact in any order.
    stages.insert(len(stages) if readout is None else readout, Mean())
    stages[end - 1] = Totals(last)
    return stages


def _stage(block: nn.Module) -> Stage:
    if _hooked(block):
        return AsItIs(block)
    # What derives from a block and runs otherwise is not that block.
    kind = type(block)
    if isinstance(block, Block) and kind.forward is Block.forward:
        if type(block)._run is Block._run:
            return _layer(block)
    elif isinstance(block, Affine) and kind.forward is Affine.forward:
        return Readout(block)
    elif isinstance(block, Residual) and kind.forward is Residual.forward:
        first = _stage(block.first)
        if isinstance(first, Layer):
            return _residual(block, first)
    elif isinstance(block, AvgPool) and kind.forward is AvgPool.forward:
        return Pool(block)
    elif kind in (Flatten, Upsample, Dropout):
        return Stateless(block)
    return AsItIs(block)


def _hooked(block: nn.Module) -> bool:
    """Whether a hook may change what goes in or comes out, but of synapses: see `weighing`."""
    others = (m for m in block.modules() if not isinstance(m, Synapse | nn.Linear | nn.Conv2d))
    return any(module._forward_pre_hooks or module._forward_hooks for module in others)


class Layer(Stage):
    """Synapses, a neuron, and how much later its spikes arrive.

    current: from x and T to z (T, N, ...), or (1, N, ...) where it is held.
    """

    def __init__(
        self,
        current: Callable[[Tensor, int], Tensor],
        neuron: Neuron,
        delay: nn.Module | None = None,
        delay_shift: bool = False,
    ) -> None:
        self.current, self.fire = current, firing(neuron)
        self.delay, self.delay_shift = delay, delay_shift
        self.alone = isinstance(self.fire, Fused)

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        """Spikes (T, N, ...)."""
        y = self.fire(self.current(x, time_steps), time_steps)
        if self.delay is not None:
            y = self.delay(y)
        if self.delay_shift:
            y = torch.cat([torch.zeros_like(y[:1]), y[:-1]])
        return y

    @property
    def sums_up(self) -> bool:
        """Whether there are `totals`."""
        return isinstance(self.fire, Fused) and self.delay is None and not self.delay_shift

    def totals(self, x: Tensor, time_steps: int) -> Tensor:
        """How often each neuron fired (N, ...)."""
        assert isinstance(self.fire, Fused)
        return self.fire.totals(self.current(x, time_steps), time_steps)


def _layer(block: Block) -> Layer:
    current = partial(_current, weighing(block.synapse, block.norm, block.quantizer))
    return Layer(current, block.unit.neuron, block.delay, block.delay_shift)


def _current(weigh: Weigh, x: Tensor, time_steps: int) -> Tensor:
    if not has_time(x):
        raise SpikestrapError(
            "expected spikes (T, N, features...) with features (C,) or (C, H, W), "
            f"got shape {tuple(x.shape)}"
        )
    return weigh(x)


def _residual(block: Residual, first: Layer) -> Layer:
    second, beside = block.second, block.shortcut
    weigh = weighing(second.synapse, second.norm, None)
    around: Weigh = Tensor.float
    if beside.synapse is not None:
        around = weighing(beside.synapse, beside.norm, None)
    layer = Layer(partial(_joined, first, weigh, around), second.unit.neuron)
    layer.alone &= first.alone
    return layer


def _joined(first: Layer, weigh: Weigh, around: Weigh, x: Tensor, time_steps: int) -> Tensor:
    return weigh(first(x, time_steps)) + around(x)


class Totals(Stage):
    """The last layer: how often each neuron fired is all that a linear readout needs."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.where = layer, layer.where

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        return self.layer.totals(x, time_steps)


class Mean(Stage):
    """From totals to means over time."""

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        return x / time_steps


class Readout(Stage):
    """`block.Affine`: logits (N, out) of means over time."""

    def __init__(self, block: Affine) -> None:
        self.weigh = weighing(block.synapse, None, block.quantizer)

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        return self.weigh(time_mean(x.float()) if has_time(x) else x)


class Pool(Stage):
    """`block.AvgPool`, of bytes without making them floats first."""

    def __init__(self, block: AvgPool) -> None:
        self.block = block
        pooling = block.pooling
        self.factor = np.float32(1 if block.sums else pooling.factor)
        self.window, self.stride, padding = pooling.sizes
        self.fused = padding == (0, 0) and pooling.window <= 255

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        if x.dtype is not torch.uint8 or not self.fused or not self._fits(x):
            pooled: Tensor = self.block(x.float())
            return pooled
        images = x.flatten(0, 1).permute(0, 2, 3, 1).contiguous()
        samples, *sizes, channels = images.shape
        height, width = (
            (size - window) // stride + 1
            for size, window, stride in zip(sizes, self.window, self.stride, strict=True)
        )
        spikes = images.numpy().reshape(samples, sizes[0], -1)
        words = channels
        if channels % 8 == 0:
            spikes, words = spikes.view(np.uint64), channels // 8
        out = torch.empty((samples, height, width, channels))
        rows = out.numpy().reshape(samples, height, -1)
        inference.pool(spikes, words, self.window, self.stride, self.factor, rows)
        return out.permute(0, 3, 1, 2).unflatten(0, x.shape[:2])

    def _fits(self, x: Tensor) -> bool:
        return x.ndim == 5 and x.shape[3] >= self.window[0] and x.shape[4] >= self.window[1]


class Stateless(Stage):
    """A block that knows no time and no type: it takes bytes as well."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        y: Tensor = self.block(x)
        return y


class AsItIs(Stage):
    """A block that is not known here, in evaluation, on the floats that it expects."""

    alone = False

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, x: Tensor, time_steps: int) -> Tensor:
        x = x.float()
        if has_time(x):
            x = x.expand(time_steps, *x.shape[1:]) if len(x) == 1 else x.contiguous()
        y = self.block(x, mode=Mode.SNN)
        spikes: Tensor = y[0] if isinstance(y, tuple) else y
        return spikes
