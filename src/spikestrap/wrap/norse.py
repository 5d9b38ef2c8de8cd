"""Norse: `spikes, state = neuron(x, state)`; a cell takes one step, `LIF` all of them."""

from __future__ import annotations

from typing import Any

from norse.torch import (
    LIF,
    LIFBoxCell,
    LIFBoxFeedForwardState,
    LIFCell,
    LIFFeedForwardState,
    LILinearCell,
    RecurrentSequential,
)
from norse.torch.module import encode
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
from torch import Tensor

from .adapter import Adapter, Library
from .layout import STEP, TIME_FIRST


def _adapter(layout: str, state: type) -> Adapter:
    def output(neuron: Any, rates: Tensor, hidden: Tensor) -> Any:
        return rates, state(*(hidden for _ in state._fields))  # type: ignore[attr-defined]

    return Adapter(
        layout=lambda _: layout,
        output=output,
        # The model passes the state on, or starts afresh: nothing stays in the neuron.
        states=lambda _: (),
        reset=lambda _: None,
        refuse=lambda _: None,
        starts=lambda _, args, kwargs: (args[1] if args[1:] else kwargs.get("state")) is None,
    )


LIBRARY = Library(
    root="norse",
    neurons={
        LIFCell: _adapter(STEP, LIFFeedForwardState),
        LIFBoxCell: _adapter(STEP, LIFBoxFeedForwardState),
        LIF: _adapter(TIME_FIRST, LIFFeedForwardState),
    },
    stateful=(SNN, SNNCell, SNNRecurrent, SNNRecurrentCell, LILinearCell, RecurrentSequential),
    encoders=(
        encode.ConstantCurrentLIFEncoder,
        encode.PoissonEncoder,
        encode.PoissonEncoderStep,
        encode.SignedPoissonEncoder,
        encode.SignedPoissonEncoderStep,
        encode.SpikeLatencyEncoder,
        encode.SpikeLatencyLIFEncoder,
    ),
)
