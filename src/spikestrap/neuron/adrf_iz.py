"""AdRFIzhikevich: an RFIzhikevich whose threshold rises with every spike."""

from __future__ import annotations

from torch import Tensor

from ..kernel.reference import State
from . import adaptation, resonator
from .adaptive_resonator import AdaptiveResonator
from .parameter import broadcast


class AdRFIzhikevich(AdaptiveResonator):
    r"""Adaptive resonate-and-fire neuron with a threshold on its imaginary part.

    .. math::
        x[t] + i\, y[t] &= (1 - d)\, e^{2 \pi i / P}\, (x[t-1] + i\, y[t-1]) + z[t] \\
        \vartheta[t] &= (1 - d_\vartheta)(\vartheta[t-1] - \vartheta_0) + \vartheta_0 \\
        r[t] &= (1 - d_r)\, r[t-1] \\
        s[t] &= y[t] > \vartheta[t] + r[t] \text{, strictly; then} \\
        r[t] &\leftarrow r[t] + 2\, \vartheta[t]\, s[t], \quad
        \vartheta[t] \leftarrow \vartheta[t] + \vartheta_{step}\, s[t]

    (lava-dl, slayer.neuron.adrf_iz, in floating point; the resonator as in `RFIzhikevich`,
    the adaptation as in `ALIF`.) As there, nothing resets x and y unless `reset` says so: the
    refractory state r holds the neuron back.

    z may be real or complex. threshold > 0 is :math:`\vartheta_0`, threshold_step >= 0;
    period >= 4 steps is P; the three decays in [0, 1]; each a number or a tensor (C,).
    reset: "none", "zero" (x = 0, y to the threshold, as in `RFIzhikevich`) or "subtract"
    (y -= threshold). The rest as in `CUBA`.

    >>> import torch
    >>> rf = AdRFIzhikevich(threshold=1.0, threshold_step=0.5, period=8.0, decay=0.1)
    >>> z = torch.cos(2 * torch.pi / 8 * torch.arange(24.0)).view(24, 1, 1)
    >>> rf(z).flatten().nonzero().flatten().tolist()
    [2, 9, 10, 17, 18]
    """

    def step(self, z: Tensor, state: State, imag: Tensor | None = None) -> tuple[Tensor, State]:
        """One step of the equations above; imag (N, ...): the imaginary part of the input."""
        x, y, theta, r = state
        threshold, rise_by = broadcast(self, z, "threshold", "threshold_step")
        x, y = resonator.rotate(self, x, y, z, imag)
        decays = broadcast(self, z, "threshold_decay", "refractory_decay")
        theta, r = adaptation.relax(theta, r, threshold, *decays)
        spikes, _ = self.firing(y - r, theta)
        fell = self.firing.seen_by_reset(spikes)
        if self.firing.reset == "zero":
            x, y = x - fell * x, y - fell * (y - theta)
        else:
            y = self.firing.fall(y, fell, theta)
        theta, r = adaptation.rise(theta, r, fell, rise_by)
        return spikes, (x, y, theta, r)
