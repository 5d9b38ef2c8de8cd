"""sinabs: spikes alone are returned; time second, (N, T, ...), or folded, (N T, ...)."""

from __future__ import annotations

from typing import Any

import sinabs.layers as sl
import torch
from sinabs.activation import MaxSpike, SingleSpike
from sinabs.layers.reshape import SqueezeMixin

from .adapter import Adapter, Library
from .layout import BATCH_FIRST, FOLDED


def _reset(neuron: Any) -> None:
    # Empty, as after construction: a state of another batch size would be drawn from at random.
    for name in tuple(neuron._buffers):
        setattr(neuron, name, torch.zeros(0, device=neuron._buffers[name].device))


def _refuse(neuron: Any) -> str | None:
    if neuron.spike_fn is None:
        return "it does not spike (spike_fn=None), so it has no rate"
    single = isinstance(neuron.spike_fn, MaxSpike) and neuron.spike_fn.max_num_spikes_per_bin == 1
    if neuron.spike_fn is not SingleSpike and not single:
        return (
            "it may fire more than once a step; build it with "
            "spike_fn=sinabs.activation.SingleSpike, so that a rate is within 0 and 1"
        )
    return None


def _steps(neuron: Any, rows: int) -> int | None:
    if not isinstance(neuron, SqueezeMixin):
        return None
    return neuron.num_timesteps if neuron.num_timesteps > 0 else rows // neuron.batch_size


def _adapter(layout: str) -> Adapter:
    return Adapter(
        layout=lambda _: layout,
        output=lambda neuron, rates, hidden: rates,
        states=lambda neuron: tuple(neuron._buffers),
        reset=_reset,
        refuse=_refuse,
        steps=_steps,
    )


LIBRARY = Library(
    root="sinabs",
    neurons={
        **dict.fromkeys((sl.IAF, sl.LIF, sl.ExpLeak), _adapter(BATCH_FIRST)),
        **dict.fromkeys((sl.IAFSqueeze, sl.LIFSqueeze, sl.ExpLeakSqueeze), _adapter(FOLDED)),
    },
    stateful=(sl.StatefulLayer,),
    encoders=(sl.Img2SpikeLayer, sl.Sig2SpikeLayer),
)
