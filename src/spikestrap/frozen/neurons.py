"""Neurons for inference: z (Tz, N, ...) to spikes, as bytes where a kernel knows the neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernel import inference
from ..kernel.inference import WIDTH
from ..neuron import CUBA, IF, LIF, ChipCUBA, Neuron
from ..neuron.parameter import check_channels, values_of

Fire = Callable[[Tensor, int], Tensor]


def firing(neuron: Neuron) -> Fire:
    """What runs the neuron over z (T, N, ...), or over z (1, N, ...) held for T steps."""
    if type(neuron).kernel in (CUBA.kernel, LIF.kernel, IF.kernel, ChipCUBA.kernel):
        return Fused(neuron)
    return lambda z, time_steps: neuron(z.contiguous(), time_steps=time_steps)


class Fused:
    """CUBA, LIF and IF neurons, also in the chip's integers: spikes are bytes.

    >>> z = torch.tensor([[[0.4, 0.6]]])
    >>> fused = Fused(IF(threshold=1.0))
    >>> fused(z, 4).squeeze(1).tolist(), fused.totals(z, 4).tolist()
    ([[0, 0], [0, 1], [1, 0], [0, 1]], [[1.0, 2.0]])
    """

    def __init__(self, neuron: Neuron) -> None:
        like, one, zero = torch.empty(0), torch.ones(()), torch.zeros(())
        if isinstance(neuron, ChipCUBA):
            values: tuple[Tensor, ...] = neuron.values()
        else:
            names = ("current_decay", "voltage_decay", "threshold", "v_init")
            absent = {"current_decay": one, "voltage_decay": zero}
            values = tuple(
                values_of(neuron, like, name)[0] if name in neuron.bounds else absent[name]
                for name in names
            )
        values = tuple(value.detach() for value in values)
        self.neuron = neuron
        self.chip = True if isinstance(neuron, ChipCUBA) else None
        # Without a current of its own a neuron has one thing less to compute.
        self.has_current = bool(self.chip) or isinstance(neuron, CUBA)
        self.params, self.v_init = _arrays(values, self.has_current)
        self.reset = neuron.firing.rule.reset  # type: ignore[union-attr]

    def __call__(self, z: Tensor, time_steps: int) -> Tensor:
        """Spikes (T, N, ...), bytes."""
        z = self._inner_features(z)
        spikes = torch.empty((time_steps, *z.shape[1:]), dtype=torch.uint8)
        out = spikes.numpy().reshape(time_steps, -1)
        inference.fire(*self._arguments(z), out)
        return _outer_features(spikes)

    def totals(self, z: Tensor, time_steps: int) -> Tensor:
        """How often each neuron fired, float32 (N, ...)."""
        z = self._inner_features(z)
        totals = torch.empty(z.shape[1:])
        inference.fire_totals(*self._arguments(z), time_steps, totals.numpy().reshape(-1))
        return _outer_features(totals)

    def _inner_features(self, z: Tensor) -> Tensor:
        if np.ndim(self.v_init):
            check_channels(self.neuron, z[0])
        return (z if z.ndim < 5 else z.permute(0, 1, 3, 4, 2)).contiguous()

    def _arguments(self, z: Tensor) -> tuple[Any, ...]:
        current = np.empty(WIDTH, np.float32) if self.has_current else None
        rows = z.numpy().reshape(z.shape[0], -1)
        return rows, self.params, self.v_init, self.reset, self.chip, current


def _outer_features(x: Tensor) -> Tensor:
    """Images (..., H, W, C) as the view (..., C, H, W)."""
    return x if x.ndim < 4 else x.movedim(-1, -3)


def _arrays(values: tuple[Tensor, ...], has_current: bool) -> tuple[tuple[Any, ...], Any]:
    """Decays and threshold, and v_init: scalars if all are, else one array (C,) each."""
    size = max(value.numel() for value in values)
    if size == 1:
        made: list[Any] = [np.float32(value.item()) for value in values]
    else:
        made = [value.expand(size).contiguous().numpy() for value in values]
    if not has_current:
        made[0] = None
    return tuple(made[:3]), made[3]
