"""The mode of whatever is called without one."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn

from ..block import Block, Residual
from ..network import Network
from ..routine import LayerMode, Mode
from ..unit import Unit, units_of
from ..wrap.network import Wrapped


class GivenModes:
    """Gives a module's networks, blocks and units the current mode where a call names none.

    A network, or a model of another library that `ss.bootstrap` took, gets the modes of all its
    units; a block or unit of a forward that the user wrote gets its own, units being counted in
    their order of definition, the two of a residual block as one. A mode that the caller names goes
    before. Lasts until `remove`; a copy made meanwhile, or what is pickled, gets none.

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
        self._longest = 0  # the most modes that a network, or the module's own blocks, use
        self._handles: list[Any] = []
        self._watch(module)

    def remove(self) -> None:
        """From here on a call without a mode is as before."""
        for handle in self._handles:
            handle.remove()

    def of(self, mode: LayerMode) -> LayerMode:
        """What a mode of the schedule is here: that of an SNN where every unit has crossed over."""
        if 0 < self._longest <= mode.crossover:
            return replace(mode, base_mode=Mode.SNN)
        return mode

    def _watch(self, module: nn.Module) -> None:
        """The outermost that take a mode; those within them get theirs from them."""
        if isinstance(module, Network | Wrapped):
            self._give(module, None)
            own = _modes_of(module)
            self.units += own
            self._longest = max(self._longest, own)
        elif isinstance(module, Block | Residual | Unit):
            self._give(module, self.units)
            self.units += 1
            self._longest = max(self._longest, self.units)
        else:
            for child in module.children():
                self._watch(child)

    def _give(self, module: nn.Module, number: int | None) -> None:
        hook = _Hook(self, number)
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))


def _modes_of(net: Network | Wrapped) -> int:
    """How many modes a network takes: one a unit, or one a block that holds several."""
    if isinstance(net, Wrapped):
        return len(net.units)
    return sum(any(True for _ in units_of(block)) for block in net.blocks)


class _Hook:
    """Puts in the mode of a module: all of it, or that of the unit of this number.

    Copied with its module it does nothing: nobody would set the mode of the copy, or remove it.
    """

    def __init__(self, modes: GivenModes | None = None, number: int | None = None) -> None:
        self._modes, self._number = modes, number

    def __reduce__(self) -> Any:
        return _Hook, ()

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._modes is None or len(args) > 1 or "mode" in kwargs:
            return None
        mode: LayerMode | Mode = self._modes.current
        if self._number is not None:
            mode = next(islice(self._modes.current, self._number, None))
        return args, {**kwargs, "mode": mode}
