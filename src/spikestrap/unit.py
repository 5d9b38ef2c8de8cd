"""The bootstrap unit: a neuron and its transfer curve behind one mode."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .ann_sampler import AnnSampler
from .compiling import disable
from .errors import SpikestrapError
from .neuron import Neuron
from .routine import Mode


class Curved(nn.Module):
    """What `units_of` finds: a neuron's curve, in `sampler`.

    Called in every pass, it returns spikes (T, N, ...) in a spiking one, else rates (N, ...).
    """

    sampler: AnnSampler


class Unit(Curved):
    """Runs a neuron or its curve, by the mode.

    SNN: z (T, N, ...) to spikes (T, N, ...), by the neuron. SAMPLE: the same, and the
    sampler records. FIT: fits what was recorded, then as ANN. ANN: z (N, ...), a time mean,
    to rates (N, ...), by the curve; samples that no fit has used are fitted first.
    Raises SpikestrapError in all modes but SNN where no curve can stand for the neuron.

    >>> import torch, spikestrap as ss
    >>> unit = Unit(ss.neuron.LIF(threshold=1.0, voltage_decay=0.1), AnnSampler())
    >>> z = torch.rand(4, 8, 3)
    >>> unit(z, Mode.SAMPLE).shape, unit(z.mean(0), Mode.FIT).shape
    (torch.Size([4, 8, 3]), torch.Size([8, 3]))
    """

    def __init__(self, neuron: Neuron, sampler: AnnSampler) -> None:
        super().__init__()
        self.neuron = neuron
        self.sampler = sampler
        sampler.kind = type(neuron).__name__
        sampler.has_v_init = "v_init" in neuron.bounds

    def forward(self, z: Tensor, mode: Mode = Mode.SNN, time_steps: int | None = None) -> Tensor:
        """z, spikes and rates as above; (1, N, ...) with `time_steps=T` is an input held."""
        mode = Mode.of(mode)
        if mode is not Mode.SNN:
            self._check_bootstrappable(z, mode)
        if mode.spiking:
            spikes: Tensor = self.neuron(z, time_steps=time_steps)
            if mode is Mode.SAMPLE:
                self.sampler.append(spikes, z)
            return spikes
        if mode is Mode.FIT or self.sampler.pending:
            self._fit(z)
        rates: Tensor = self.sampler(z)
        return rates

    @disable
    def _fit(self, z: Tensor) -> None:
        """Fits the curve, for means z (N, ...); where samples show none, as the neuron says."""
        dtype = torch.promote_types(z.dtype, torch.float32)

        def respond(held: Tensor, time_steps: int) -> Tensor:
            # Its forward, as a hook would take it for a pass.
            spikes = self.neuron.forward(held.to(dtype)[None], time_steps=time_steps)
            assert isinstance(spikes, Tensor)
            return spikes.float().mean(0)

        self.sampler.features = tuple(z.shape[1:])
        self.sampler.fit(respond)

    def _check_bootstrappable(self, z: Tensor, mode: Mode) -> None:
        reason = self.neuron.not_bootstrappable
        if z.is_complex():
            reason = "with a complex input its rate depends on two numbers, not on one"
        if reason is not None:
            raise SpikestrapError(
                f"{type(self.neuron).__name__} cannot be bootstrapped: {reason}; got {mode}, "
                "expected Mode.SNN, in which it can be trained directly"
            )


def units_of(module: nn.Module) -> Iterator[tuple[str, Curved]]:
    """Name and unit of every bootstrap unit in a module, in order of definition.

    Those of another library's neurons, in what `spikestrap.bootstrap` returns, are among them.
    """
    return ((name, m) for name, m in module.named_modules() if isinstance(m, Curved))


def no_units(caller: str, module: nn.Module) -> SpikestrapError:
    """What to raise where a module has none and one is needed."""
    return SpikestrapError(
        f"{caller}: {type(module).__name__} has no spikestrap units; expected spikestrap blocks "
        "in it, or a model of another library in spikestrap.bootstrap"
    )
