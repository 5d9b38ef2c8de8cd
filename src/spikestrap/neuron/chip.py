"""CUBA-LIF as Loihi computes it: integers, in units in which they look like floats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import SpikestrapError
from ..grid import CURRENT_DECAY, STATE, THRESHOLD, VOLTAGE_DECAY
from ..kernel.reference import State
from ..straight_through import straight_through
from .base import Neuron
from .cuba import CUBA
from .integrate_fire import IF
from .lif import LIF
from .parameter import check_channels, per_channel

_LIMIT, _UNIT = 2**23 / 4096, 1 / 4096


class ChipCUBA(Neuron):
    r"""`CUBA` in the integers of Loihi, as Lava's bit-accurate LIF computes it.

    .. math::
        u[t] &= \operatorname{wrap}(\operatorname{decay}(u[t-1], d_u) + z[t]) \\
        v[t] &= \operatorname{clip}(\operatorname{decay}(v[t-1], d_v) + u[t]) \\
        \operatorname{decay}(x, d) &= \operatorname{trunc}(x\,(4096 - d))\,/\,4096

    (lava.proc.lif, PyLifModelBitAcc; Davies et al., Loihi, IEEE Micro 38, 2018.) u and v are
    whole numbers of 1/4096 with 24 bits: u wraps around at 2048, v stops short of it. The
    decays are whole 1/4096, the threshold whole 1/64. z must be whole 1/64, as weights on
    the chip's grid make it. The gradient is that of `CUBA`, straight through the rounding.

    neuron: the CUBA, LIF or IF whose parameters it takes over, under the same names.

    >>> chip = ChipCUBA(CUBA(threshold=1.0, voltage_decay=0.1))
    >>> chip(torch.full((4, 1, 1), 0.5)).flatten().tolist()
    [0.0, 0.0, 1.0, 0.0]
    """

    threshold: Tensor
    v_init: Tensor

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        steps = (CUBA.step, LIF.step, IF.step)  # what derives from them may step otherwise
        if not isinstance(neuron, CUBA | LIF | IF) or type(neuron).step not in steps:
            raise SpikestrapError(
                f"{type(neuron).__name__}: the chip's precision is that of CUBA, LIF and IF neurons"
            )
        self.firing = neuron.firing
        vars(self)["bounds"] = neuron.bounds  # a class variable where the class settles them
        for name, tensor in neuron.named_buffers():
            self.register_buffer(name, tensor)
        for name, parameter in neuron.named_parameters():
            self.register_parameter(name, parameter)

    @property
    def filters_current(self) -> bool:
        """See the function of that name."""
        return filters_current(self)

    def values(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Current decay, voltage decay, threshold and v_init on the chip's grids."""
        unity, none = torch.ones_like(self.threshold), torch.zeros_like(self.threshold)
        return (
            CURRENT_DECAY(getattr(self, "current_decay", unity)),
            VOLTAGE_DECAY(getattr(self, "voltage_decay", none)),
            THRESHOLD(self.threshold),
            STATE(self.v_init),
        )

    def init_state(self, z: Tensor) -> State:
        """Current u = 0 and membrane v = v_init, each (N, ...)."""
        check_channels(self, z)
        v_init = self.values()[3].to(z)
        return torch.zeros_like(z), per_channel(v_init, z).expand_as(z)

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the equations above."""
        u, v = state
        current_decay, voltage_decay, threshold = (
            per_channel(p.to(z.dtype), z) for p in self.values()[:3]
        )
        u = straight_through(chip_decay(u, current_decay) + z, _wrap)
        v = straight_through(chip_decay(v, voltage_decay) + u, _clip)
        spikes, v = self.firing(v, threshold)
        return spikes, (u, v)

    def extra_repr(self) -> str:
        return f"reset={self.firing.reset!r}"


def filters_current(neuron: nn.Module) -> bool:
    """Whether its current outlives its step, or may come to by training."""
    decay = getattr(neuron, "current_decay", None)
    return decay is not None and (decay.requires_grad or not bool((decay == 1).all()))


class _Decay(torch.autograd.Function):
    """x (1 - decay), rounded toward zero to whole 1/4096; the gradient is that without rounding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, decay: Tensor) -> Tensor:
        kept = x.double() * (4096 - 4096 * decay.double())  # whole numbers: exact in float64
        return (kept.trunc() / 4096).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, decay = ctx.saved_tensors
        by_decay = (-grads[0] * x).sum_to_size(decay.shape) if ctx.needs_input_grad[1] else None
        return grads[0] * (1 - decay), by_decay


def chip_decay(x: Tensor, decay: Tensor) -> Tensor:
    """x after its decay, on the chip; overridable, so that a step can be traced through it."""
    if has_torch_function((x, decay)):
        traced: Tensor = handle_torch_function(chip_decay, (x, decay), x, decay)
        return traced
    decayed: Tensor = _Decay.apply(x, decay)
    return decayed


def _wrap(u: Tensor) -> Tensor:
    """Into 24 bits by wrapping around, as the chip's current."""
    u = torch.where(u > _LIMIT, u - 2 * _LIMIT, u)
    return torch.where(u <= -_LIMIT, u + 2 * _LIMIT, u)


def _clip(v: Tensor) -> Tensor:
    """Into 24 bits by saturation, as the chip's membrane."""
    return v.clamp(_UNIT - _LIMIT, _LIMIT - _UNIT)
