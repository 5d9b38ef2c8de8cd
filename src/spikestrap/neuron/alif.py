"""ALIF: a CUBA neuron whose threshold rises with every spike."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from torch import Tensor

from ..kernel.reference import State
from . import adaptation
from .base import Neuron
from .firing import Firing
from .parameter import (
    ANY,
    DECAY,
    THRESHOLD,
    Bounds,
    Value,
    broadcast,
    check_channels,
    initial,
    register_all,
)


class ALIF(Neuron):
    r"""Adaptive leaky integrate-and-fire neuron, with lava-dl's equations.

    .. math::
        u[t] &= (1 - d_u)\, u[t-1] + z[t] \\
        v[t] &= (1 - d_v)\, v[t-1] + u[t] \\
        \vartheta[t] &= (1 - d_\vartheta)(\vartheta[t-1] - \vartheta_0) + \vartheta_0 \\
        r[t] &= (1 - d_r)\, r[t-1] \\
        s[t] &= v[t] - r[t] > \vartheta[t], \text{ strictly; then} \\
        r[t] &\leftarrow r[t] + 2\, \vartheta[t]\, s[t], \quad
        \vartheta[t] \leftarrow \vartheta[t] + \vartheta_{step}\, s[t]

    (lava-dl, slayer.neuron.alif, in floating point; adaptive thresholds: Bellec et al.,
    Long short-term memory and learning-to-learn in networks of spiking neurons, NeurIPS
    2018.) As there, nothing resets v unless `reset` says so: the refractory state r holds
    the neuron back.

    threshold > 0 is :math:`\vartheta_0`, threshold_step >= 0; the four decays in [0, 1];
    v_init: the membrane's first value; each a number or a tensor (C,). The rest as in `CUBA`.

    >>> import torch
    >>> alif = ALIF(threshold=1.0, threshold_step=0.5, voltage_decay=0.5, threshold_decay=0.5)
    >>> alif(torch.full((4, 1, 1), 1.25)).flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {
        "threshold": THRESHOLD,
        **adaptation.BOUNDS,
        "current_decay": DECAY,
        "voltage_decay": DECAY,
        "v_init": ANY,
    }

    def __init__(
        self,
        threshold: Value,
        threshold_step: Value,
        current_decay: Value = 1.0,
        voltage_decay: Value = 0.0,
        threshold_decay: Value = 0.1,
        refractory_decay: Value = 0.5,
        *,
        reset: str = "none",
        v_init: Value = 0.0,
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        detach_reset: bool = True,
        learnable: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.firing = Firing(reset, surrogate, tau_grad, scale_grad, detach_reset)
        register_all(
            self,
            learnable,
            threshold=threshold,
            threshold_step=threshold_step,
            current_decay=current_decay,
            voltage_decay=voltage_decay,
            threshold_decay=threshold_decay,
            refractory_decay=refractory_decay,
            v_init=v_init,
        )

    def init_state(self, z: Tensor) -> State:
        """u = 0, v = v_init, the threshold at rest and r = 0, each (N, ...)."""
        check_channels(self, z)
        u = r = z.new_zeros(()).expand_as(z)
        return u, initial(self, z, "v_init"), initial(self, z, "threshold"), r

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equations above."""
        u, v, theta, r = state
        current_decay, voltage_decay = broadcast(self, z, "current_decay", "voltage_decay")
        threshold, rise_by = broadcast(self, z, "threshold", "threshold_step")
        u = u * (1 - current_decay) + z
        v = v * (1 - voltage_decay) + u
        decays = broadcast(self, z, "threshold_decay", "refractory_decay")
        theta, r = adaptation.relax(theta, r, threshold, *decays)
        spikes, _ = self.firing(v - r, theta)
        fell = self.firing.seen_by_reset(spikes)
        v = self.firing.fall(v, fell, theta)
        theta, r = adaptation.rise(theta, r, fell, rise_by)
        return spikes, (u, v, theta, r)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"
