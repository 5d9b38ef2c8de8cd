"""lava.lib.dl.slayer.neuron.cuba: the CUBA neuron by itself, time last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ....block.base import split_neuron
from ....errors import SpikestrapError
from ....grid import STATE
from ....neuron import CUBA, ChipCUBA
from ...neuron_params import SCALE, translate

_P_SCALE = 4096  # decays on the chip over this
_LEARNABLE = ("current_decay", "voltage_decay")


class Neuron(nn.Module):
    """A CUBA neuron in the chip's integers: inputs (N, C, ..., T) to spikes of that shape.

    The parameters are those of a block's neuron dict, without norm and dropout. Inputs are
    rounded to whole 1/4096.

    >>> import torch
    >>> neuron = Neuron(threshold=1.0, current_decay=1.0, voltage_decay=0.0)
    >>> neuron(torch.full((1, 1, 4), 0.75)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self, threshold: float, current_decay: float, voltage_decay: float, **params: Any
    ) -> None:
        super().__init__()
        params.update(threshold=threshold, current_decay=current_decay, voltage_decay=voltage_decay)
        neuron, options = split_neuron(translate(params, _LEARNABLE, "Neuron"), CUBA, "Neuron")
        if any(options.values()):
            raise SpikestrapError("Neuron: norm and dropout belong to a block's neuron dict")
        self.neuron = ChipCUBA(neuron)

    def forward(self, input: Tensor) -> Tensor:
        """Spikes of a run from rest."""
        if input.ndim < 3:
            raise SpikestrapError(
                f"Neuron: expected (N, C, ..., T), time last; got shape {tuple(input.shape)}"
            )
        spikes: Tensor = self.neuron(STATE(input.movedim(-1, 0)))
        return spikes.movedim(0, -1)

    @property
    def device_params(self) -> dict[str, Any]:
        """The numbers of the chip, by the names of a .net file."""
        current_decay, voltage_decay, threshold, _ = self.neuron.values()
        return {
            "type": "CUBA",
            "iDecay": round(current_decay.item() * _P_SCALE),
            "vDecay": round(voltage_decay.item() * _P_SCALE),
            "vThMant": round(threshold.item() * SCALE),
            "refDelay": 1,
            "gradedSpike": False,
        }


def neuron_params(
    device_params: Mapping[str, Any], scale: int = SCALE, p_scale: int = _P_SCALE
) -> dict[str, float]:
    """The neuron dict of a chip's numbers.

    >>> neuron_params(dict(vThMant=80, iDecay=4096, vDecay=1024))
    {'threshold': 1.25, 'current_decay': 1.0, 'voltage_decay': 0.25}
    """
    return {
        "threshold": device_params["vThMant"] / scale,
        "current_decay": device_params["iDecay"] / p_scale,
        "voltage_decay": device_params["vDecay"] / p_scale,
    }
