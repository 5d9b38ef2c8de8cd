"""CUBA-LIF over all time steps as one custom operator, `spikestrap::cuba`.

One operator serves CUBA, LIF (current_decay 1) and IF (voltage_decay 0 as well). Being an
operator, it is one node to autograd and to torch.compile. The state is float32, whatever
the input; a second derivative is refused, since that of a surrogate means nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import cpu
from .autograd import refuse_second_derivative

RESETS = ("zero", "subtract", "none")


class Rule(NamedTuple):
    """What of the dynamics is not a tensor: reset and surrogate by their codes.

    `chip`: the state is in whole 1/4096, rounded and bounded as on Loihi.
    """

    reset: int
    surrogate: int
    tau_grad: float
    scale_grad: float
    detach_reset: bool
    chip: bool = False


def run(
    z: Tensor,
    u: Tensor,
    v: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    threshold: Tensor,
    time_steps: int,
    rule: Rule,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (T, N, ...) and the states u, v (N, ...) after the last step.

    z: float32 (T, N, ...), or (1, N, ...) for an input held over `time_steps` steps.
    u, v: float32 (N, ...). Parameters: () or (C,), one value for each entry of axis 2 of z.
    """
    params = (current_decay, voltage_decay, threshold)
    spikes, u, v = _cuba(z, u, v, *params, time_steps, *rule)
    return spikes, u, v


@torch.library.custom_op("spikestrap::cuba", mutates_args=(), device_types="cpu")
def _cuba(
    z: Tensor,
    u: Tensor,
    v: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    threshold: Tensor,
    time_steps: int,
    reset: int,
    surrogate: int,
    tau_grad: float,
    scale_grad: float,
    detach_reset: bool,
    chip: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    spikes = z.new_empty((time_steps, *z.shape[1:]))
    u_last, v_last = torch.empty_like(spikes[0]), torch.empty_like(spikes[0])
    cpu.cuba_forward(
        _rows(z),
        _flat(u),
        _flat(v),
        *_parameters(current_decay, voltage_decay, threshold),
        _inner(z),
        reset,
        _flag(chip),
        _rows(spikes),
        _flat(u_last),
        _flat(v_last),
    )
    return spikes, u_last, v_last


@_cuba.register_fake
def _(z: Tensor, u: Tensor, v: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    spikes = z.new_empty((args[3], *z.shape[1:]))
    return spikes, z.new_empty(z.shape[1:]), z.new_empty(z.shape[1:])


@torch.library.custom_op("spikestrap::cuba_backward", mutates_args=(), device_types="cpu")
def _cuba_backward(
    grad_spikes: Tensor,
    grad_u: Tensor,
    grad_v: Tensor,
    z: Tensor,
    u: Tensor,
    v: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    threshold: Tensor,
    reset: int,
    surrogate: int,
    tau_grad: float,
    scale_grad: float,
    detach_reset: bool,
    chip: bool,
    want_params: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_z = torch.empty(z.shape, dtype=z.dtype)
    grad_u0, grad_v0 = torch.empty(u.shape, dtype=u.dtype), torch.empty(v.shape, dtype=v.dtype)
    params = (current_decay, voltage_decay, threshold)
    sums = None
    if want_params:
        width = cpu.backward_width(grad_spikes.shape[0])
        blocks = -(-grad_u0.numel() // width)
        sums = np.zeros((3, blocks, max(p.numel() for p in params)))
    cpu.cuba_backward(
        _rows(grad_spikes),
        _flat(grad_u),
        _flat(grad_v),
        _rows(z),
        _flat(u),
        _flat(v),
        *_parameters(*params),
        _inner(z),
        reset,
        surrogate,
        tau_grad,
        scale_grad,
        detach_reset,
        _flag(chip),
        _rows(grad_z),
        _flat(grad_u0),
        _flat(grad_v0),
        sums,
    )
    grad_params = [torch.zeros_like(p) for p in params]
    if sums is not None:
        for grad, total in zip(grad_params, torch.from_numpy(sums.sum(1)), strict=True):
            grad.copy_(total.sum() if grad.ndim == 0 else total)
    return grad_z, grad_u0, grad_v0, grad_params[0], grad_params[1], grad_params[2]


@_cuba_backward.register_fake
def _(grad_spikes: Tensor, grad_u: Tensor, grad_v: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in args[:6])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.rule = inputs[7:]


def _backward(ctx: Any, grad_spikes: Tensor, grad_u: Tensor, grad_v: Tensor) -> tuple[Any, ...]:
    want_params = any(ctx.needs_input_grad[3:6])
    grads = _cuba_backward(grad_spikes, grad_u, grad_v, *ctx.saved_tensors, *ctx.rule, want_params)
    if not want_params:
        grads = (*grads[:3], None, None, None)
    return (*grads, *[None] * 7)


torch.library.register_autograd(_cuba, _backward, setup_context=_save)
torch.library.register_autograd(_cuba_backward, refuse_second_derivative)


def _rows(x: Tensor) -> np.ndarray:
    """(T, ...) as a contiguous array (T, M)."""
    return x.detach().contiguous().view(x.shape[0], math.prod(x.shape[1:])).numpy()


def _inner(z: Tensor) -> int:
    """How many neighbours in memory share a channel, axis 2."""
    return max(math.prod(z.shape[3:]), 1)


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().view(-1).numpy()


def _flag(value: bool) -> bool | None:
    """None for False: numba compiles another version for it, without what the flag asks for."""
    return True if value else None


def _parameters(*params: Tensor) -> tuple[Any, ...]:
    """Scalars if all are, else one array (C,) each: the kernels are compiled for either."""
    if all(p.numel() == 1 for p in params):
        return tuple(np.float32(p.item()) for p in params)
    size = max(p.numel() for p in params)
    return tuple(p.detach().expand(size).contiguous().numpy() for p in params)
