"""A frozen network: stages one after the other, a part of the batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from ..errors import SpikestrapError, at
from ..network import Network, enter
from ..timeaxis import compact, has_time, is_held, time_mean
from .stages import stages_of
from .workers import each

# Samples a part: what a few of them need on their way fits the cache.
PART = 32
# Fewer do not pay for the way to another thread.
SMALLEST_PART = 8


class Frozen:
    """What `Network.freeze` gives: called on inputs it gives logits (N, out).

    blocks: in evaluation, and nobody else's. time_steps: as in `Network`.

    >>> import spikestrap as ss
    >>> neuron = dict(threshold=1.0, voltage_decay=0.1, norm="batch")
    >>> net = ss.Network(
    ...     ss.block.lif.Dense(neuron, 64, 32), ss.block.lif.Affine(neuron, 32, 10), time_steps=4
    ... )
    >>> x = torch.rand(16, 64)
    >>> torch.allclose(net.freeze()(x), net.eval()(x, ss.Mode.SNN), atol=1e-6)
    True
    """

    def __init__(self, blocks: Iterable[nn.Module], time_steps: int | None) -> None:
        self.stages = stages_of(blocks)
        self.time_steps = time_steps

    @classmethod
    def of(cls, net: Network) -> Frozen:
        """See `Network.freeze`."""
        if type(net).forward is not Network.forward:
            raise SpikestrapError(
                f"freeze: {type(net).__name__} has a forward of its own, which a frozen network "
                "would not run; expected blocks in a row, as Network runs them"
            )
        for name, tensor in chain(net.named_parameters(), net.named_buffers()):
            wrong = tensor.is_floating_point() and tensor.dtype is not torch.float32
            if wrong or tensor.device.type != "cpu":
                raise SpikestrapError(
                    f"freeze: expected a float32 network on cpu, got {tensor.dtype} on "
                    f"{tensor.device.type} for {name}"
                )
        blocks = copy.deepcopy(net.blocks).eval().requires_grad_(False)
        return cls(blocks, net.time_steps)

    def __call__(self, x: Tensor) -> Tensor:
        """x: float32 on the CPU, (N, features...), or (T, N, features...) with time_steps None."""
        if x.dtype is not torch.float32 or x.device.type != "cpu":
            raise SpikestrapError(
                f"Frozen: expected a float32 input on cpu, got {x.dtype} on {x.device.type}"
            )
        x = enter(x, self.time_steps)
        time_steps = len(x)
        parts: Sequence[Tensor] = (x,)
        if all(stage.alone for stage in self.stages):
            size = min(PART, -(-x.shape[1] // torch.get_num_threads()))
            parts = x.split(max(size, SMALLEST_PART), 1)
        return torch.cat(each(partial(self._run, time_steps=time_steps), parts))

    @torch.inference_mode()
    def _run(self, x: Tensor, time_steps: int) -> Tensor:
        for stage in self.stages:
            if has_time(x):
                time_steps = time_steps if is_held(x) else len(x)
                x = compact(x)
            with at(stage.where):
                x = stage(x, time_steps)
        return time_mean(x.float()) if has_time(x) else x

    def __repr__(self) -> str:
        lines = "".join(f"\n  {stage.where}: {stage}" for stage in self.stages)
        return f"Frozen(time_steps={self.time_steps},{lines}\n)"
