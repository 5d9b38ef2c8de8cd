"""CUBA-LIF over all time steps as one custom operator, `spikestrap::cuba`.

One operator serves CUBA, LIF (current_decay 1) and IF (voltage_decay 0 as well). Being an
operator, it is one node to autograd and to torch.compile. The state is float32, whatever
the input; a second derivative is refused, since that of a surrogate means nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import cpu
from .arrays import flat, inner, rows
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
    u: Tensor | None,
    v: Tensor,
    current_decay: Tensor | None,
    voltage_decay: Tensor,
    threshold: Tensor,
    time_steps: int,
    rule: Rule,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (T, N, ...) and the states u, v (N, ...) after the last step.

    z: float32 (T, N, ...), or (1, N, ...) for an input held over `time_steps` steps.
    u, v: float32 (N, ...). Parameters: () or (C,), one value for each entry of axis 2 of z.
    u and current_decay None: the membrane takes its input as it comes (LIF); the u that is
    returned is then empty.
    """
    params = (current_decay, voltage_decay, threshold)
    spikes, u, v = _cuba(z, u, v, *params, time_steps, *rule)
    return spikes, u, v


@torch.library.custom_op("spikestrap::cuba", mutates_args=(), device_types="cpu")
def _cuba(
    z: Tensor,
    u: Tensor | None,
    v: Tensor,
    current_decay: Tensor | None,
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
    v_last = torch.empty_like(spikes[0])
    u_last = z.new_empty(0) if u is None else torch.empty_like(v_last)
    cpu.cuba_forward(
        rows(z),
        _flat(u),
        _flat(v),
        _parameters(current_decay, voltage_decay, threshold),
        inner(z),
        reset,
        _flag(chip),
        rows(spikes),
        None if u is None else _flat(u_last),
        _flat(v_last),
    )
    return spikes, u_last, v_last


@_cuba.register_fake
def _(z: Tensor, u: Tensor | None, v: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    spikes, v_last = z.new_empty((args[3], *z.shape[1:])), z.new_empty(z.shape[1:])
    return spikes, z.new_empty(0) if u is None else torch.empty_like(v_last), v_last


@torch.library.custom_op("spikestrap::cuba_backward", mutates_args=(), device_types="cpu")
def _cuba_backward(
    grad_spikes: Tensor,
    grad_u: Tensor | None,
    grad_v: Tensor | None,
    z: Tensor,
    u: Tensor | None,
    v: Tensor,
    current_decay: Tensor | None,
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
    grad_z, grad_v0 = z.new_empty(z.shape), v.new_empty(v.shape)
    grad_u0 = z.new_empty(0 if u is None else u.shape)
    params = (current_decay, voltage_decay, threshold)
    sums = None
    if want_params:
        blocks = -(-grad_v0.numel() // cpu.backward_width(grad_spikes.shape[0]))
        sums = np.zeros((blocks, 3, max(p.numel() for p in params if p is not None)))
    cpu.cuba_backward[surrogate](
        (rows(grad_spikes), _flat(grad_u), _flat(grad_v)),
        rows(z),
        _flat(u),
        _flat(v),
        _parameters(*params),
        inner(z),
        reset,
        (tau_grad, scale_grad, detach_reset),
        _flag(chip),
        (rows(grad_z), None if u is None else _flat(grad_u0), _flat(grad_v0)),
        sums,
    )
    grad_params = [z.new_empty(0) if p is None else torch.zeros_like(p) for p in params]
    if sums is not None:
        for grad, total in zip(grad_params, torch.from_numpy(sums.sum(0)), strict=True):
            if grad.numel():
                grad.copy_(total.sum() if grad.ndim == 0 else total)
    return grad_z, grad_u0, grad_v0, grad_params[0], grad_params[1], grad_params[2]


@_cuba_backward.register_fake
def _(grad_spikes: Tensor, grad_u: Any, grad_v: Any, z: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return tuple(z.new_empty(0 if x is None else x.shape) for x in (z, *args[:5]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6])
    ctx.time_steps, ctx.rule = inputs[6], inputs[7:]


def _backward(
    ctx: Any, grad_spikes: Tensor | None, grad_u: Tensor | None, grad_v: Tensor | None
) -> tuple[Any, ...]:
    z = ctx.saved_tensors[0]
    if grad_spikes is None:
        grad_spikes = z.new_zeros((ctx.time_steps, *z.shape[1:]))
    want_params = any(ctx.needs_input_grad[3:6])
    grads = _cuba_backward(grad_spikes, grad_u, grad_v, *ctx.saved_tensors, *ctx.rule, want_params)
    wanted = zip(grads, ctx.needs_input_grad, strict=False)
    return (*(grad if needed else None for grad, needed in wanted), *[None] * 7)


torch.library.register_autograd(_cuba, _backward, setup_context=_save)
torch.library.register_autograd(_cuba_backward, refuse_second_derivative)


def _flat(x: Tensor | None) -> np.ndarray | None:
    """As an array (M,), or (1,) where all values are one in memory."""
    if x is None:
        return None
    x = x.detach()
    if x.numel() and not any(x.stride()):
        x = x[(0,) * x.ndim]
    return flat(x)


def _flag(value: bool) -> bool | None:
    """None for False: numba compiles another version for it, without what the flag asks for."""
    return True if value else None


def _parameters(*params: Tensor | None) -> tuple[Any, ...]:
    """Scalars if all are, else one array (C,) each: the kernels are compiled for either."""
    size = max(p.numel() for p in params if p is not None)
    if size == 1:
        return tuple(None if p is None else np.float32(p.item()) for p in params)
    return tuple(
        None if p is None else p.detach().expand(size).contiguous().numpy() for p in params
    )
