"""A frozen network: stages one after the other, a part of the batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from ..errors import SpikestrapError
from ..kernel.memory import values_hidden
from ..network import Network, check_finite, enter, refuse_own_forward
from ..precision import without_autocast
from ..timeaxis import compact, has_time, is_held, refuse_lengths, time_mean
from .stages import stages_of
from .workers import each

# How many numbers the largest layer may have in a part of the batch: 8 MiB, so that what one layer
# passes on to the next is still in the last cache.
CACHE = 2**21
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
        # How many samples of a shape make up for CACHE.
        self._fitting: dict[tuple[int, ...], int] = {}

    @classmethod
    def of(cls, net: Network) -> Frozen:
        """See `Network.freeze`."""
        refuse_own_forward(net, "freeze")
        for name, tensor in chain(net.named_parameters(), net.named_buffers()):
            wrong = tensor.is_floating_point() and tensor.dtype is not torch.float32
            if wrong or tensor.device.type != "cpu":
                raise SpikestrapError(
                    f"freeze: expected a float32 network on cpu, got {tensor.dtype} on "
                    f"{tensor.device.type} for {name}"
                )
        # What a hook set when it was last called, as in torch's pruning, torch does not copy.
        computed = {
            id(value): value.detach().clone()
            for module in net.blocks.modules()
            for value in vars(module).values()
            if isinstance(value, Tensor) and not value.is_leaf
        }
        blocks = copy.deepcopy(net.blocks, computed).eval().requires_grad_(False)
        return cls(blocks, net.time_steps)

    def __call__(self, x: Tensor) -> Tensor:
        """x: float32 on the CPU, (N, features...), or (T, N, features...) with time_steps None."""
        if isinstance(x, Tensor) and (x.dtype is not torch.float32 or x.device.type != "cpu"):
            raise SpikestrapError(
                f"Frozen: expected a float32 input on cpu, got {x.dtype} on {x.device.type}"
            )
        if values_hidden():
            raise SpikestrapError(
                "Frozen: expected to run outside torch.func's transforms; the network itself can"
            )
        refuse_lengths("Frozen: a frozen network")
        x = enter(x, self.time_steps).detach()
        run = partial(self._run, time_steps=len(x))
        with without_autocast("cpu"):
            return torch.cat(each(run, x.split(self._part(x), 1)))

    def _part(self, x: Tensor) -> int:
        """How many samples of the batch x (T, N, ...) to run together."""
        samples, threads = x.shape[1], torch.get_num_threads()
        if not all(stage.alone for stage in self.stages):
            return samples
        shape = (x.shape[0], *x.shape[2:])
        if shape not in self._fitting:
            largest = max(map(torch.numel, self._outputs(x[:, :1], x.shape[0])))
            self._fitting[shape] = max(1, CACHE // largest)
        rounds = -(-samples // (self._fitting[shape] * threads))
        return max(SMALLEST_PART, -(-samples // (rounds * threads)))

    @torch.inference_mode()
    def _run(self, x: Tensor, time_steps: int) -> Tensor:
        check_finite(x)  # here, so that each thread looks at its own part
        *_, x = self._outputs(x, time_steps)
        return time_mean(x.float()) if has_time(x) else x

    def _outputs(self, x: Tensor, time_steps: int) -> Iterator[Tensor]:
        """What each stage makes of x."""
        for stage in self.stages:
            if has_time(x):
                time_steps = time_steps if is_held(x) else len(x)
                x = compact(x)
            try:
                x = stage(x, time_steps)
            except SpikestrapError as error:
                raise type(error)(f"{stage.where}: {error}") from error
            yield x

    def __repr__(self) -> str:
        named = [f"{stage.where}: {type(stage).__name__}" for stage in self.stages if stage.where]
        return f"Frozen(time_steps={self.time_steps}, {', '.join(named)})"
