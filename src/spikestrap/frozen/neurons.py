"""Neurons for inference: z (Tz, N, ...) to spikes, as bytes where a kernel can be compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..kernel import automatic, compiled, fused_wanted
from ..kernel.trace import Trace
from ..neuron import Neuron
from ..neuron.parameter import check_channels

Fire = Callable[[Tensor, int], Tensor]

_DENSE = 3  # axes of (T, N, C)
_SHAPES = 64  # that are kept prepared: of parts of batches, a network has few


def firing(neuron: Neuron) -> Fire:
    """What runs the neuron over z (T, N, ...), or over z (1, N, ...) held for T steps."""
    traced = _traced(neuron)
    if traced is not None:
        return Fused(neuron, traced)
    return partial(_as_it_is, neuron)


class Fused:
    """A neuron on kernels that write its spikes as bytes. Images have their channels last.

    >>> import spikestrap as ss
    >>> z = torch.tensor([[[0.4, 0.6]]])
    >>> fused = firing(ss.neuron.IF(threshold=1.0))
    >>> fused(z, 4).squeeze(1).tolist(), fused.totals(z, 4).tolist()
    ([[0, 0], [0, 1], [1, 0], [0, 1]], [[1.0, 2.0]])
    """

    def __init__(self, neuron: Neuron, traced: Trace | None) -> None:
        self.neuron = neuron
        self._prepared = lru_cache(_SHAPES)(partial(_prepare, neuron, traced))

    def __reduce__(self) -> Any:
        # Kernels are of this process. Where another has none, the neuron runs as it is.
        return _fused_again, (self.neuron,)

    def __call__(self, z: Tensor, time_steps: int) -> Tensor:
        """Spikes (T, N, ...), bytes; floats of a complex z, and where the neuron runs as it is."""
        run = self._kernel(z, time_steps, counted=False)
        if run is None:
            return _as_it_is(self.neuron, z, time_steps)
        spikes = run(_rows(z))
        return spikes if z.ndim == _DENSE else _as_before(spikes, z)

    def totals(self, z: Tensor, time_steps: int) -> Tensor:
        """How often each neuron fired, float32 (N, ...)."""
        run = self._kernel(z, time_steps, counted=True)
        if run is None:
            return self(z, time_steps).sum(0)
        totals = run(_rows(z))
        return totals if z.ndim == _DENSE else _as_before(totals.unsqueeze(0), z).squeeze(0)

    def _kernel(self, z: Tensor, time_steps: int, counted: bool) -> compiled.Inference | None:
        return None if z.is_complex() else self._prepared(z.shape, time_steps, counted)


def _fused_again(neuron: Neuron) -> Fused:
    return Fused(neuron, _traced(neuron))


def _prepare(
    neuron: Neuron, traced: Trace | None, shape: torch.Size, time_steps: int, counted: bool
) -> compiled.Inference | None:
    """For z of that shape, (T, N, ...); None where the neuron goes by more of it than channels,
    and without a trace.
    """
    if traced is None:
        return None
    z = torch.zeros((), dtype=torch.float32, device="cpu").expand(shape)
    check_channels(neuron, z[0])
    rows = _rows(z)
    state = neuron.init_state(rows[0])
    if z.ndim != _DENSE:
        own = neuron.init_state(z[0])
        alike = (torch.equal(_rows(a.unsqueeze(0))[0], b) for a, b in zip(own, state, strict=True))
        if not all(alike) or not isinstance(automatic.usable(neuron, (z,), own), Trace):
            return None
    return compiled.Inference(traced, rows, state, time_steps, counted=counted)


def _rows(z: Tensor) -> Tensor:
    """z as (T, samples and places, C)."""
    return (z if z.ndim == _DENSE else z.movedim(2, -1).flatten(1, -2)).contiguous()


def _as_it_is(neuron: Neuron, z: Tensor, time_steps: int) -> Tensor:
    spikes: Tensor = neuron(z.contiguous(), time_steps=time_steps)
    return spikes


def _as_before(rows: Tensor, z: Tensor) -> Tensor:
    """(T, samples and places, C) as (T, N, C, ...), a view."""
    return rows.view(-1, z.shape[1], *z.shape[3:], z.shape[2]).movedim(-1, 2)


def _traced(neuron: Neuron) -> Trace | None:
    """The neuron's step, where it is all that there is, and gives spikes of 0 or 1."""
    z = torch.zeros(1, 1, max((getattr(neuron, name).numel() for name in neuron.bounds), default=1))
    alone = type(neuron).forward is Neuron.forward and not any(neuron.children())
    if not alone or not fused_wanted(z, type(neuron).__name__):
        return None
    with torch.no_grad():
        state = neuron.init_state(z[0])
        # A first state is prepared once for a shape, so that it may rest on nothing else.
        if neuron.extra(z, 1) or not all(map(torch.equal, state, neuron.init_state(z[0] + 1))):
            return None
        found = automatic.usable(neuron, (z,), state)
    return found if isinstance(found, Trace) and found.structure.is_binary else None
