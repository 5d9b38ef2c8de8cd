"""NoisyLIF: a LIF neuron that fires at random around its threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..choices import check_choice
from ..kernel.reference import State
from .base import Neuron
from .firing import Firing
from .parameter import (
    ANY,
    DECAY,
    NOT_NEGATIVE,
    THRESHOLD,
    Bounds,
    Value,
    broadcast,
    check_channels,
    initial,
    register_all,
)

DISTRIBUTIONS = ("gaussian", "logistic")


class NoisyLIF(Neuron):
    r"""Leaky integrate-and-fire neuron with a noisy threshold.

    .. math::
        v[t] = (1 - d_v)\, v[t-1] + z[t], \quad s[t] = v[t] > \vartheta + \sigma\, \xi[t],
        \text{ strictly; then the reset of } v \text{, by } \vartheta \text{ if by subtraction}

    with :math:`\xi` independent for each neuron and step (Gerstner et al., Neuronal Dynamics,
    2014, sections 8.1 and 9.1). distribution="gaussian": standard normal;
    "logistic": the neuron fires with probability sigmoid((v - threshold) / noise), which is
    escape noise, or stochastic rounding of the membrane with a soft edge.

    Noise is there in training and evaluation alike, drawn by torch's generator, step by
    step: torch.manual_seed makes it repeatable, also in chunks. In blocks its curve, which
    foretells the expected rate, is not rounded to k / T. threshold > 0; voltage_decay
    in [0, 1]; noise >= 0 is :math:`\sigma`; v_init: the membrane's first value; each a number
    or a tensor (C,). The rest as in `CUBA`.

    >>> _ = torch.manual_seed(0)
    >>> noisy = NoisyLIF(threshold=1.0, voltage_decay=1.0, noise=0.5, distribution="logistic")
    >>> rate = noisy(torch.full((1, 1000, 1), 1.0), time_steps=10).mean()
    >>> bool(0.48 < rate < 0.52)
    True
    """

    bounds: ClassVar[Mapping[str, Bounds]] = {
        "threshold": THRESHOLD,
        "voltage_decay": DECAY,
        "noise": NOT_NEGATIVE,
        "v_init": ANY,
    }
    stochastic = True

    def __init__(
        self,
        threshold: Value,
        voltage_decay: Value,
        noise: Value = 0.1,
        *,
        distribution: str = "gaussian",
        reset: str = "zero",
        v_init: Value = 0.0,
        surrogate: str = "exponential",
        tau_grad: float = 1.0,
        scale_grad: float = 1.0,
        detach_reset: bool = True,
        learnable: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_choice("NoisyLIF: distribution", distribution, DISTRIBUTIONS)
        self.distribution = distribution
        self.firing = Firing(reset, surrogate, tau_grad, scale_grad, detach_reset)
        register_all(
            self,
            learnable,
            threshold=threshold,
            voltage_decay=voltage_decay,
            noise=noise,
            v_init=v_init,
        )

    def init_state(self, z: Tensor) -> State:
        """Membrane v = v_init (N, ...)."""
        check_channels(self, z)
        return (initial(self, z, "v_init"),)

    def extra(self, z: Tensor, time_steps: int) -> tuple[Tensor, ...]:
        """The noise (T, N, ...), in units of `noise`."""
        # One draw a step, so that chunks draw what the whole does.
        steps = range(time_steps)
        if self.distribution == "gaussian":
            return (torch.stack([torch.randn_like(z[0]) for _ in steps]),)
        uniform = torch.stack([torch.rand_like(z[0]) for _ in steps])
        return (torch.logit(uniform, eps=1e-6),)

    def step(self, z: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:  # type: ignore[override]
        """One step of the equation above; noise (N, ...) is :math:`\\xi`."""
        (v,) = state
        voltage_decay, threshold, level = broadcast(self, z, "voltage_decay", "threshold", "noise")
        v = v * (1 - voltage_decay) + z
        spikes, _ = self.firing(v - level * noise, threshold)
        return spikes, (self.firing.fall(v, self.firing.seen_by_reset(spikes), threshold),)

    def extra_repr(self) -> str:
        return f"distribution={self.distribution!r}, reset={self.firing.reset!r}"
