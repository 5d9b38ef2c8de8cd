"""Any traced step over all time steps as one custom operator, `spikestrap::scan_compiled`.

The operator gets the number of a structure, and generates and compiles that structure's
kernels when it first needs them. As `spikestrap::cuba` it is one node to autograd and to
torch.compile, and refuses a second derivative.
"""

from __future__ import annotations

import functools
import math
import threading
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import cache
from .arrays import flat, inner, rows
from .autograd import refuse_second_derivative
from .generate import Wanted, backward_source, forward_source
from .reference import State
from .threads import share_out
from .trace import Structure, Trace

# What a block may save for its backward pass, in floats: half an L2 cache.
_SAVED_FLOATS = 65536
_structures: list[Structure] = []
_numbers: dict[Structure, int] = {}
_lock = threading.RLock()


def number_of(structure: Structure) -> int:
    """The number by which the operator knows a structure, the same for equal ones."""
    with _lock:
        if structure not in _numbers:
            _numbers[structure] = len(_structures)
            _structures.append(structure)
        return _numbers[structure]


def run(
    traced: Trace, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    """As `reference.scan` of the traced step, for float32 tensors on the CPU.

    >>> from .trace import trace
    >>> count = lambda z, state: (z + state[0], (state[0] + 1,))
    >>> z, state = torch.zeros(1, 2), (torch.zeros(2),)
    >>> out, state = run(trace(count, z[0], state), (z,), state, time_steps=3)
    >>> out[:, 0].tolist(), state[0].tolist()
    ([0.0, 1.0, 2.0], [3.0, 3.0])
    """
    number = number_of(traced.structure)
    out = _scan(number, list(inputs), list(state), traced.scalars, traced.channels, time_steps)
    return out[0], tuple(out[1:])


@torch.library.custom_op(
    "spikestrap::scan_compiled",
    mutates_args=(),
    device_types="cpu",
    schema="(int number, Tensor[] inputs, Tensor[] state, Tensor[] scalars, Tensor[] channels, "
    "int time_steps) -> Tensor[]",
)
def _scan(
    number: int,
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    time_steps: int,
) -> list[Tensor]:
    z = inputs[0]
    spikes = z.new_empty((time_steps, *z.shape[1:]))
    last = [z.new_empty(z.shape[1:]) for _ in state]
    module = _forward_module(number)
    arguments = (
        inner(z),
        *_parameters(scalars, channels),
        *(rows(x) for x in inputs),
        *(flat(s) for s in state),
        rows(spikes),
        *(flat(s) for s in last),
    )
    share_out(lambda first, end: module.forward(first, end, *arguments), _blocks(z, module.WIDTH))
    return [spikes, *last]


@_scan.register_fake
def _(
    number: int,
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    time_steps: int,
) -> list[Tensor]:
    z = inputs[0]
    return [z.new_empty((time_steps, *z.shape[1:])), *(z.new_empty(z.shape[1:]) for _ in state)]


@torch.library.custom_op(
    "spikestrap::scan_compiled_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(int number, Tensor[] grads, Tensor[] inputs, Tensor[] state, Tensor[] scalars, "
    "Tensor[] channels, int[] want_inputs, int[] want_scalars, int[] want_channels) -> Tensor[]",
)
def _scan_backward(
    number: int,
    grads: list[Tensor],
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    want_inputs: list[int],
    want_scalars: list[int],
    want_channels: list[int],
) -> list[Tensor]:
    """Gradients of the wanted inputs, of all states, of the wanted scalars and channels."""
    wanted = Wanted(tuple(want_inputs), tuple(want_scalars), tuple(want_channels))
    module = _backward_module(number, wanted)
    z = inputs[0]
    saved = grads[0].shape[0] * max(module.SAVED, 1)
    width = max(16, min(module.WIDTH, _SAVED_FLOATS // saved))
    blocks = _blocks(z, width)
    scalar_sums = np.zeros((len(want_scalars), blocks, 1))
    channel_sums = np.zeros((len(want_channels), blocks, z.shape[2] if z.ndim > 2 else 1))
    grad_inputs = [torch.empty(inputs[k].shape, dtype=z.dtype) for k in want_inputs]
    grad_state = [torch.empty(s.shape, dtype=z.dtype) for s in state]
    arguments = (
        width,
        inner(z),
        *_parameters(scalars, channels),
        *(rows(x) for x in inputs),
        *(flat(s) for s in state),
        rows(grads[0]),
        *(flat(g) for g in grads[1:]),
        *(rows(g) for g in grad_inputs),
        *(flat(g) for g in grad_state),
        scalar_sums,
        channel_sums,
    )
    share_out(lambda first, end: module.backward(first, end, *arguments), blocks)
    grad_scalars = [
        torch.full_like(scalars[k], total)
        for k, total in zip(want_scalars, scalar_sums.sum((1, 2)), strict=True)
    ]
    grad_channels = [
        torch.from_numpy(total).to(z.dtype).view(channels[k].shape)
        for k, total in zip(want_channels, channel_sums.sum(1), strict=True)
    ]
    return [*grad_inputs, *grad_state, *grad_scalars, *grad_channels]


@_scan_backward.register_fake
def _(
    number: int,
    grads: list[Tensor],
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    want_inputs: list[int],
    want_scalars: list[int],
    want_channels: list[int],
) -> list[Tensor]:
    like = [inputs[k] for k in want_inputs] + state
    like += [scalars[k] for k in want_scalars] + [channels[k] for k in want_channels]
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in like]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    number, *lists, _ = inputs
    ctx.number = number
    ctx.lengths = [len(part) for part in lists]
    ctx.save_for_backward(*(tensor for part in lists for tensor in part))
    ctx.wanted = [[k for k, x in enumerate(part) if x.requires_grad] for part in lists]


def _backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    saved = iter(ctx.saved_tensors)
    lists = [[next(saved) for _ in range(length)] for length in ctx.lengths]
    wanted = list(ctx.wanted)
    found = iter(_scan_backward(ctx.number, grads, *lists, wanted[0], wanted[2], wanted[3]))
    wanted[1] = list(range(ctx.lengths[1]))
    out: list[list[Tensor | None]] = [[None] * length for length in ctx.lengths]
    for part, indices in zip(out, wanted, strict=True):
        for k in indices:
            part[k] = next(found)
    return (None, *out, None)


torch.library.register_autograd(_scan, _backward, setup_context=_save)
torch.library.register_autograd(_scan_backward, refuse_second_derivative)


@functools.cache
def _forward_module(number: int) -> ModuleType:
    with _lock:
        return cache.load(forward_source(_structures[number]))


@functools.cache
def _backward_module(number: int, wanted: Wanted) -> ModuleType:
    with _lock:
        return cache.load(backward_source(_structures[number], wanted))


def _blocks(z: Tensor, width: int) -> int:
    return -(-math.prod(z.shape[1:]) // width)


def _parameters(scalars: list[Tensor], channels: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """(P,) and (K, C)."""
    values = [p.detach().reshape(1) for p in scalars]
    lines = [p.detach().reshape(-1) for p in channels]
    return (
        (torch.cat(values) if values else torch.empty(0, dtype=torch.float32)).numpy(),
        (torch.stack(lines) if lines else torch.empty(0, 1, dtype=torch.float32)).numpy(),
    )
