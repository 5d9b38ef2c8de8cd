"""The mode of whatever is called without one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from torch import nn

from ..ann_sampler import AnnSampler
from ..block import Block
from ..network import Network
from ..routine import LayerMode, Mode
from ..unit import Unit
from ..wrap.network import Wrapped


class GivenModes:
    """Gives a module's networks, blocks and units the current mode where a call names none.

    A network, or a model of another library that `ss.bootstrap` took, gets the modes of all its
    units; a block or unit of a forward that the user wrote gets its own, units being counted in
    their order of definition. A mode that the caller names goes before. Lasts until `remove`.

    >>> import torch, spikestrap as ss
    >>> net = nn.Sequential(ss.block.cuba.Dense(dict(threshold=1.0), 6, 3))
    >>> modes = GivenModes(net)
    >>> x = ss.hold(torch.rand(5, 6), 4)
    >>> modes.current = ss.LayerMode(ss.Mode.SAMPLE); net(x).shape    # spikes
    torch.Size([4, 5, 3])
    >>> modes.current = ss.LayerMode(ss.Mode.FIT); net(x).shape       # rates
    torch.Size([5, 3])
    >>> modes.remove()
    """

    def __init__(self, module: nn.Module) -> None:
        self.current = LayerMode(Mode.SNN)
        self.units = 0
        self._handles: list[Any] = []
        self._watch(module)

    def remove(self) -> None:
        """From here on a call without a mode is as before."""
        for handle in self._handles:
            handle.remove()

    def _watch(self, module: nn.Module) -> None:
        """The outermost that take a mode; those within them get theirs from them."""
        if isinstance(module, Network | Wrapped):
            self._give(module, None)
            self.units += sum(isinstance(m, AnnSampler) for m in module.modules())
        elif isinstance(module, Block | Unit):
            self._give(module, self.units)
            self.units += 1
        else:
            for child in module.children():
                self._watch(child)

    def _give(self, module: nn.Module, number: int | None) -> None:
        def hook(
            _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if len(args) > 1 or "mode" in kwargs:
                return None
            mode: LayerMode | Mode = self.current
            if number is not None:
                mode = next(islice(self.current, number, None))
            return args, {**kwargs, "mode": mode}

        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
