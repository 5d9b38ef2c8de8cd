"""Any traced step over all time steps as one custom operator, `spikestrap::scan_compiled`.

The operator gets the number of a structure, and generates and compiles that structure's
kernels when it first needs them. Being an operator, it is one node to autograd and to
torch.compile. A second derivative is refused, since that of a surrogate means nothing.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from . import native, threads
from .arrays import inner
from .autograd import refuse_second_derivative
from .generate import Source, Wanted, backward_source, forward_source, inference_source
from .reference import State
from .trace import Structure, Trace

# What a block may save for its backward pass, in floats: half an L2 cache.
_SAVED_FLOATS = 65536
# Neurons a block, and what its states may take, in floats.
_WIDEST, _NARROWEST, _STATE_FLOATS = 4096, 256, 32768
# Blocks to share out even of a small layer; and steps times neurons not worth a second thread.
_FEW_BLOCKS, _LITTLE_WORK = 16, 32768
# Parts of a sum over neurons: as many whatever the threads, so that its rounding is the same.
_TOTALS = 64
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
    lists = (list(inputs), list(state), traced.scalars, traced.channels)
    states = len(state)
    trains = torch.is_grad_enabled() and any(x.requires_grad for part in lists for x in part)
    stretch = stretch_of(time_steps, states) if trains else time_steps
    out = _scan(number, *lists, time_steps, stretch)
    return out[0], tuple(out[1 : 1 + states])


def infer(
    traced: Trace, z: Tensor, state: State, time_steps: int, *, counted: bool = False
) -> Tensor:
    """The spikes of `run` alone, as bytes (T, N, ...); or, counted, how often each neuron fired,
    float32 (N, ...). On the calling thread alone, without a gradient; z and state as there.

    >>> from .trace import trace
    >>> fire = lambda z, state: ((z + state[0] > 1).float(), (z + state[0],))
    >>> z, state = torch.full((1, 1, 1), 0.5), (torch.zeros(1, 1),)
    >>> infer(trace(fire, z[0], state), z, state, 4).flatten()
    tensor([0, 0, 1, 1], dtype=torch.uint8)
    >>> infer(trace(fire, z[0], state), z, state, 4, counted=True).item()
    2.0
    """
    kernel = _inference_kernel(number_of(traced.structure), counted)
    width = _width(len(state), math.prod(z.shape[1:]))
    call = _Call(kernel, z, width, traced.scalars, traced.channels, time_steps, alone=True)
    call.steps("x0", z, held=z.shape[0] == 1)
    for k, start in enumerate(state):
        call.values(f"s{k}", start)
    if counted:
        out = torch.empty(z.shape[1:], dtype=torch.float32)
    else:
        out = torch.empty((time_steps, *z.shape[1:]), dtype=torch.uint8)
    call.array("counts" if counted else "spikes", out)
    call.run(0, time_steps)
    return out


def stretch_of(time_steps: int, states: int) -> int:
    """Steps a stretch: the backward pass goes back over the steps by stretches, from the
    states at their starts, so that what a block of neurons saves of one stays in cache.
    """
    most = max(1, _SAVED_FLOATS // (_NARROWEST * max(states, 1)))
    return -(-time_steps // -(-time_steps // most))


@torch.library.custom_op(
    "spikestrap::scan_compiled",
    mutates_args=(),
    device_types="cpu",
    schema="(int number, Tensor[] inputs, Tensor[] state, Tensor[] scalars, Tensor[] channels, "
    "int time_steps, int stretch) -> Tensor[]",
)
def _scan(
    number: int,
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    time_steps: int,
    stretch: int,
) -> list[Tensor]:
    """Spikes, last states, and the states at the starts of all stretches but the first:
    each state's (stretches - 1, N, ...).
    """
    z = inputs[0]
    out = _empty_results(z, len(state), time_steps, stretch)
    spikes, lasts, borders = out[0], out[1 : 1 + len(state)], out[1 + len(state) :]
    kernel = _forward_kernel(number)
    width = _width(len(state), math.prod(z.shape[1:]))
    call = _Call(kernel, z, width, scalars, channels, min(stretch, time_steps))
    for k, x in enumerate(inputs):
        call.steps(f"x{k}", x, held=x.shape[0] == 1)
    call.steps("spikes", spikes)
    before = state
    for first in range(0, time_steps, stretch):
        end = min(first + stretch, time_steps)
        after = lasts if end == time_steps else [border[first // stretch] for border in borders]
        for k, (start, last) in enumerate(zip(before, after, strict=True)):
            call.values(f"s{k}", start)
            call.array(f"last{k}", last)
        call.run(first, end)
        before = after
    return out


def _empty_results(z: Tensor, states: int, time_steps: int, stretch: int) -> list[Tensor]:
    shape = z.shape[1:]
    out = [z.new_empty((time_steps, *shape))]
    out += [z.new_empty(shape) for _ in range(states)]
    borders = -(-time_steps // stretch) - 1
    return out + [z.new_empty((borders, *shape)) for _ in range(states)]


@_scan.register_fake
def _(
    number: int,
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    time_steps: int,
    stretch: int,
) -> list[Tensor]:
    return _empty_results(inputs[0], len(state), time_steps, stretch)


@torch.library.custom_op(
    "spikestrap::scan_compiled_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(int number, Tensor[] grads, Tensor[] inputs, Tensor[] state, Tensor[] scalars, "
    "Tensor[] channels, Tensor[] borders, int stretch, int[] want_inputs, int[] want_scalars, "
    "int[] want_channels) -> Tensor[]",
)
def _scan_backward(
    number: int,
    grads: list[Tensor],
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    borders: list[Tensor],
    stretch: int,
    want_inputs: list[int],
    want_scalars: list[int],
    want_channels: list[int],
) -> list[Tensor]:
    """Gradients of the wanted inputs, of all states, of the wanted scalars and channels."""
    z, time_steps = inputs[0], grads[0].shape[0]
    held = tuple(k for k in want_inputs if inputs[k].shape[0] == 1)
    wanted = Wanted(tuple(want_inputs), tuple(want_scalars), tuple(want_channels), held)
    kernel = _backward_kernel(number, wanted)
    saved = min(stretch, time_steps) * max(kernel.saved, 1)
    widest = _width(len(state), math.prod(z.shape[1:]))
    width = max(min(widest, _SAVED_FLOATS // saved // 16 * 16), 16)
    grad_inputs = [
        (torch.zeros if k in held else torch.empty)(inputs[k].shape, dtype=z.dtype)
        for k in want_inputs
    ]
    size = max(math.prod(z.shape[2:3]), 1)
    totals = len(want_scalars) + len(want_channels) * size
    after, grad_state = grads[1:], []
    steps = min(stretch, time_steps)
    call = _Call(kernel, z, width, scalars, channels, steps, totals)
    for k, x in enumerate(inputs):
        call.steps(f"x{k}", x, held=x.shape[0] == 1)
    call.steps("grad_spikes", grads[0])
    for k, grad in zip(want_inputs, grad_inputs, strict=True):
        call.steps(f"grad_x{k}", grad, held=k in held)
    for first in reversed(range(0, time_steps, stretch)):
        start = [border[first // stretch - 1] for border in borders] if first else state
        grad_state = [torch.empty(s.shape, dtype=z.dtype) for s in state]
        for k in range(len(state)):
            call.values(f"s{k}", start[k])
            call.values(f"grad_last{k}", after[k])
            call.array(f"grad_s{k}", grad_state[k])
        call.run(first, min(first + stretch, time_steps))
        after = grad_state
    sums = call.totals()
    grad_scalars = [torch.full_like(scalars[k], sums[j]) for j, k in enumerate(want_scalars)]
    lines = torch.from_numpy(sums[len(want_scalars) :]).view(len(want_channels), size)
    grad_channels = [
        line.to(z.dtype).view(channels[k].shape)
        for k, line in zip(want_channels, lines, strict=True)
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
    borders: list[Tensor],
    stretch: int,
    want_inputs: list[int],
    want_scalars: list[int],
    want_channels: list[int],
) -> list[Tensor]:
    like = [inputs[k] for k in want_inputs] + state
    like += [scalars[k] for k in want_scalars] + [channels[k] for k in want_channels]
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in like]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    number, *lists, time_steps, stretch = inputs
    ctx.set_materialize_grads(False)
    ctx.number, ctx.time_steps, ctx.stretch = number, time_steps, stretch
    ctx.wanted = [[k for k, x in enumerate(part) if x.requires_grad] for part in lists]
    lists.append(output[1 + len(lists[1]) :])
    ctx.lengths = [len(part) for part in lists]
    ctx.save_for_backward(*(tensor for part in lists for tensor in part))


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    saved = iter(ctx.saved_tensors)
    *lists, borders = [[next(saved) for _ in range(length)] for length in ctx.lengths]
    z, states = lists[0][0], ctx.lengths[1]
    nothing = z.new_zeros(()).expand(z.shape[1:])
    of_spikes, *of_states = grads[: 1 + states]
    if of_spikes is None:
        of_spikes = z.new_zeros((ctx.time_steps, *z.shape[1:]))
    last = [of_spikes, *(nothing if grad is None else grad for grad in of_states)]
    wanted = list(ctx.wanted)
    found = iter(
        _scan_backward(
            ctx.number, last, *lists, borders, ctx.stretch, wanted[0], wanted[2], wanted[3]
        )
    )
    wanted[1] = list(range(states))
    out: list[list[Tensor | None]] = [[None] * len(part) for part in lists]
    for part, indices in zip(out, wanted, strict=True):
        for k in indices:
            part[k] = next(found)
    return (None, *out, None, None)


torch.library.register_autograd(_scan, _backward, setup_context=_save)
torch.library.register_autograd(_scan_backward, refuse_second_derivative)


class _Kernel:
    """A kernel ready to run."""

    def __init__(self, source: Source) -> None:
        self.places = {name: place for place, name in enumerate(source.arguments)}
        self.saved, self.rows = source.saved, source.rows
        self.address = native.load(source.code)


@functools.cache
def _forward_kernel(number: int) -> _Kernel:
    with _lock:
        return _Kernel(forward_source(_structures[number]))


@functools.cache
def _inference_kernel(number: int, counted: bool) -> _Kernel:
    with _lock:
        return _Kernel(inference_source(_structures[number], counted))


@functools.cache
def _backward_kernel(number: int, wanted: Wanted) -> _Kernel:
    with _lock:
        return _Kernel(backward_source(_structures[number], wanted))


def _width(states: int, neurons: int) -> int:
    """The most neurons a block: their states should stay in a core's cache, and there should be
    work for all threads. It does not depend on how many these are, as sums would then.
    """
    even = -(-neurons // (16 * _FEW_BLOCKS)) * 16
    width = min(_WIDEST, max(_NARROWEST, even))
    while width * states > _STATE_FLOATS and width > _NARROWEST:
        width //= 2
    return width


class _Call:
    """A kernel's arguments by their names, of which it need not take all; and its workspace.

    steps: the most that `run` is asked for. alone: on the calling thread only.
    """

    def __init__(
        self,
        kernel: _Kernel,
        z: Tensor,
        width: int,
        scalars: list[Tensor],
        channels: list[Tensor],
        steps: int,
        totals: int = 0,
        alone: bool = False,
    ) -> None:
        self._kernel = kernel
        self._numbers = np.zeros(len(kernel.places) + 1, np.int64)
        self._alive: dict[str, Tensor] = {}
        self._by_steps: dict[str, int] = {}
        neurons, near, size = math.prod(z.shape[1:]), inner(z), math.prod(z.shape[2:3])
        for name, value in (
            *(("neurons", neurons), ("width", width), ("inner", near)),
            *(("channels", size), ("period", size * near)),
        ):
            self._set(name, value)
        self._blocks = -(-neurons // width)
        worth_it = steps * neurons >= _LITTLE_WORK and not alone
        threads = max(min(numba.get_num_threads(), self._blocks), 1) if worth_it else 1
        floats = (kernel.rows + steps * kernel.saved) * width
        self._workspaces = np.empty((threads, floats), np.float32)
        self._totals = np.zeros((min(self._blocks, _TOTALS) if totals else threads, totals))
        values = [p.detach().reshape(1) for p in scalars]
        self.array("scalars", torch.cat(values) if values else torch.empty(0, dtype=torch.float32))
        for k, line in enumerate(channels):
            if f"channel{k}" in kernel.places:
                one = line.detach().reshape(-1, 1).expand(-1, near).reshape(-1)
                self.array(f"channel{k}", one.repeat(1 + -(-width // max(len(one), 1))))

    def _set(self, name: str, value: int) -> None:
        place = self._kernel.places.get(name)
        if place is not None:
            self._numbers[place] = value

    def array(self, name: str, tensor: Tensor) -> None:
        """A tensor that is read or written, contiguous if it is written."""
        self._alive[name] = tensor = tensor.detach().contiguous()
        self._set(name, tensor.data_ptr())

    def values(self, name: str, tensor: Tensor) -> None:
        """A tensor of one value a neuron, which may be one for all in memory."""
        tensor = tensor.detach()
        single = tensor.numel() > 0 and not any(tensor.stride())
        self.array(name, tensor[(0,) * tensor.ndim] if single else tensor)
        self._set(f"stride_{name}", 0 if single else 1)

    def steps(self, name: str, tensor: Tensor, held: bool = False) -> None:
        """A tensor of steps (T, N, ...), which `run` takes a stretch of, unless it is held."""
        self.array(name, tensor)
        stride = 0 if held else math.prod(tensor.shape[1:])
        self._set(f"stride_{name}", stride)
        self._by_steps[name] = stride

    def run(self, first: int, end: int) -> None:
        """From step first up to end."""
        self._set("time_steps", end - first)
        for name, stride in self._by_steps.items():
            self._set(name, self._alive[name].data_ptr() + 4 * first * stride)
        threads.share_out(
            self._kernel.address, self._blocks, self._numbers, self._workspaces, self._totals
        )

    def totals(self) -> np.ndarray:
        """What all threads added up."""
        sums: np.ndarray = self._totals.sum(0)
        return sums
