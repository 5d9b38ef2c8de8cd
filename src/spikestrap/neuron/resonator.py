"""The part that resonators share: a damped rotation, driven by a real or a complex input.

.. math::
    x[t] + i\\, y[t] = (1 - d)\\, e^{i \\varphi}\\, (x[t-1] + i\\, y[t-1]) + z[t],
    \\quad \\varphi = 2 \\pi / P

(Izhikevich, Resonate-and-fire neurons, Neural Networks 14, 2001, stepped exactly; Orchard et
al., Efficient neuromorphic signal processing with Loihi 2, SiPS 2021.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Neuron
from .parameter import DECAY, THRESHOLD, Bounds, broadcast

# Below 4 steps a period the rotation leaves its quadrant: no oscillation to speak of.
BOUNDS = {"threshold": THRESHOLD, "period": Bounds(4.0), "decay": DECAY}


def rotate(
    neuron: Neuron, x: Tensor, y: Tensor, real: Tensor, imag: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One step of the equation above, by the neuron's `period` P and `decay` d.

    >>> import spikestrap as ss
    >>> rf = ss.neuron.RF(threshold=1.0, period=4.0, decay=0.5)
    >>> x, y = rotate(rf, torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), None)
    >>> round(x.item(), 6) == 0, y.item()
    (True, 0.5)
    """
    period, decay = broadcast(neuron, real, "period", "decay")
    phase = 2 * math.pi / period
    cos, sin = torch.cos(phase) * (1 - decay), torch.sin(phase) * (1 - decay)
    x, y = x * cos - y * sin + real, x * sin + y * cos
    return x, (y if imag is None else y + imag)


def crosses(spikes: Tensor, y_before: Tensor, y: Tensor) -> Tensor:
    """The spikes where the phase passes 0, from y < 0 to y >= 0; elsewhere 0."""
    return torch.where(y_before < 0, torch.where(y >= 0, spikes, 0.0), 0.0)
