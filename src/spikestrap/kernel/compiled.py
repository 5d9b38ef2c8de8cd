"""Any traced step over all time steps on the CPU: the operator `spikestrap::scan_compiled`."""

from __future__ import annotations

import array as arrays
import ctypes
import functools
import math
import threading
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import native, threads
from .derivative import Wanted
from .generate import GROUP, Source, backward_source, forward_source, inference_source
from .reference import State
from .room import room_for
from .scanning import Scan, empty_gradients, empty_results, inner
from .threads import Rows
from .trace import Trace, in_one, structure_of
from .vector import FLOAT_BYTES

# Steps that the backward pass goes back over at once, at most, over the number of states.
_STRETCH = 256
# Neurons a block at most. Blocks to share out even of a small layer; and steps times neurons
# not worth a second thread.
_WIDEST, _FEW_BLOCKS, _LITTLE_WORK = 4096, 16, 32768
# Results of more bytes go to memory past the caches, where they would not stay anyway.
_CACHED_BYTES = 2**24
# Parts of a sum over neurons: as many whatever the threads, so that its rounding is the same.
_TOTALS = 64
_PLANS = 1024  # that are kept: of shapes, a training has few
_PAGE = 4096
_lock = threading.Lock()


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
    return _operator(traced, inputs, state, time_steps, stretch_of)


class Inference:
    """A traced step over time without a gradient, on the calling thread alone.

    Called on inputs like z (T, N, ...) it gives the spikes of `run` as bytes (T, N, ...); or,
    counted, how often each neuron fired, float32 (N, ...). What does not depend on the values of
    z is prepared once, which for a small layer takes longer than to run it.

    >>> from .trace import trace
    >>> fire = lambda z, state: ((z + state[0] > 1).float(), (z + state[0],))
    >>> z, state = torch.full((1, 1, 1), 0.5), (torch.zeros(1, 1),)
    >>> traced = trace(fire, z[0], state)
    >>> Inference(traced, z, state, 4)(z).flatten()
    tensor([0, 0, 1, 1], dtype=torch.uint8)
    >>> Inference(traced, z, state, 4, counted=True)(z).item()
    2.0
    """

    def __init__(
        self, traced: Trace, z: Tensor, state: State, time_steps: int, *, counted: bool = False
    ) -> None:
        kernel = _inference_kernel(traced.number, counted)
        # Copied: what becomes of the neuron's parameters afterwards does not count.
        scalars = [traced.packed] if traced.scalars else []
        self._call = _Call(kernel, z, scalars, traced.channels, time_steps, alone=True)
        self._call.steps("x0", z, held=z.shape[0] == 1)
        for k, start in enumerate(state):
            self._call.values(f"s{k}", start)
        self._out = "counts" if counted else "spikes"
        self._dtype = torch.float32 if counted else torch.uint8
        self._shape = z.shape[1:] if counted else (time_steps, *z.shape[1:])
        self._call.prepare(time_steps, "x0")

    def __call__(self, z: Tensor) -> Tensor:
        """z contiguous, of the shape and dtype that it was prepared for."""
        out = torch.empty(self._shape, dtype=self._dtype, device="cpu")
        self._call.run_on({"x0": z.data_ptr(), self._out: out.data_ptr()})
        return out


def stretch_of(time_steps: int, states: int) -> int:
    """Steps a stretch: the backward pass goes back over the steps by stretches, from the
    states at their starts, so that what a group of neurons saves of one stays in cache.
    """
    most = max(1, _STRETCH // max(states, 1))
    return -(-time_steps // -(-time_steps // most))


def _forward(
    number: int,
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    time_steps: int,
    stretch: int,
) -> list[Tensor]:
    z = inputs[0]
    out = empty_results(room_for, z.shape[1:], len(state), time_steps, stretch)
    spikes, lasts, borders = out[0], out[1 : 1 + len(state)], out[1 + len(state) :]
    kernel = _forward_kernel(number, _streamed(spikes))
    call = _Call(kernel, z, scalars, channels, min(stretch, time_steps))
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


def _backward(
    number: int,
    wanted: Wanted,
    grads: list[Tensor],
    inputs: list[Tensor],
    state: list[Tensor],
    scalars: list[Tensor],
    channels: list[Tensor],
    borders: list[Tensor],
    stretch: int,
) -> list[Tensor]:
    z, time_steps = inputs[0], grads[0].shape[0]
    grad_inputs = empty_gradients(room_for, wanted, inputs)
    streamed = bool(grad_inputs) and all(map(_streamed, grad_inputs))
    kernel = _backward_kernel(number, wanted, streamed)
    size = max(math.prod(z.shape[2:3]), 1)
    totals = len(wanted.scalars) + len(wanted.channels) * size
    after, grad_state = grads[1:], []
    call = _Call(kernel, z, scalars, channels, min(stretch, time_steps), totals)
    for k, x in enumerate(inputs):
        call.steps(f"x{k}", x, held=x.shape[0] == 1)
    call.steps("grad_spikes", grads[0])
    for k, grad in zip(wanted.inputs, grad_inputs, strict=True):
        call.steps(f"grad_x{k}", grad, held=k in wanted.held)
    for first in reversed(range(0, time_steps, stretch)):
        start = [border[first // stretch - 1] for border in borders] if first else state
        grad_state = [torch.empty(s.shape, dtype=z.dtype, device="cpu") for s in state]
        for k in range(len(state)):
            call.values(f"s{k}", start[k])
            call.values(f"grad_last{k}", after[k])
            call.array(f"grad_s{k}", grad_state[k])
        call.run(first, min(first + stretch, time_steps))
        after = grad_state
    if not totals:
        return [*grad_inputs, *grad_state]
    sums = call.totals()
    grad_scalars = [torch.full_like(scalars[k], sums[j]) for j, k in enumerate(wanted.scalars)]
    lines = torch.from_numpy(sums[len(wanted.scalars) :]).view(len(wanted.channels), size)
    grad_channels = [
        line.to(z.dtype).view(channels[k].shape)
        for k, line in zip(wanted.channels, lines, strict=True)
    ]
    return [*grad_inputs, *grad_state, *grad_scalars, *grad_channels]


_operator = Scan("scan_compiled", ("cpu",), _forward, _backward)


class _Kernel:
    """A kernel ready to run."""

    def __init__(self, source: Source) -> None:
        self.places = {name: place for place, name in enumerate(source.arguments)}
        self.saved, self.rows = source.saved, source.rows
        self.address = native.load(source.code)


@functools.cache
def _forward_kernel(number: int, streamed: bool) -> _Kernel:
    with _lock:
        return _Kernel(forward_source(structure_of(number), streamed))


@functools.cache
def _inference_kernel(number: int, counted: bool) -> _Kernel:
    with _lock:
        return _Kernel(inference_source(structure_of(number), counted))


@functools.cache
def _backward_kernel(number: int, wanted: Wanted, streamed: bool) -> _Kernel:
    with _lock:
        return _Kernel(backward_source(structure_of(number), wanted, streamed))


def _streamed(result: Tensor) -> bool:
    """Whether to write steps (T, N, ...) past the caches, which takes whole lines of them.

    Then states go there as well: torch's memory starts with a line, and so do all their rows.
    """
    neurons = math.prod(result.shape[1:])
    whole = neurons % 16 == 0 and result.data_ptr() % 64 == 0
    return whole and FLOAT_BYTES * result.numel() > _CACHED_BYTES


def _width(neurons: int) -> int:
    """Neurons a block, whole groups of them: there should be work for all threads. It does not
    depend on how many these are, as sums would then.
    """
    even = -(-neurons // (GROUP * _FEW_BLOCKS)) * GROUP
    return min(_WIDEST, max(GROUP, even))


class _Plan(NamedTuple):
    """What a kernel's calls on equal shapes have in common.

    numbers: its arguments, of which the sizes are in place, and one more, since LLVM's kernel may
    take none. rows: of totals. floats: of a thread's workspace.
    """

    numbers: arrays.array[int]
    neurons: int
    width: int
    blocks: int
    threads: int
    rows: int
    floats: int


@functools.lru_cache(_PLANS)
def _plan(kernel: _Kernel, shape: torch.Size, steps: int, totals: bool, most: int) -> _Plan:
    """For z of that shape; most: threads. The other arguments are those of `_Call`."""
    neurons, channels, near = math.prod(shape[1:]), math.prod(shape[2:3]), math.prod(shape[3:])
    near = max(near, 1)
    width = _width(neurons)
    sizes = {"neurons": neurons, "width": width, "inner": near}
    sizes |= {"channels": channels, "period": channels * near}
    numbers = arrays.array("q", bytes(8 * (len(kernel.places) + 1)))
    for name, place in kernel.places.items():
        numbers[place] = sizes.get(name, 0)
    blocks = -(-neurons // width)
    worth_it = steps * neurons >= _LITTLE_WORK
    threads = max(min(most, blocks), 1) if worth_it else 1
    floats = kernel.rows * width + steps * kernel.saved * GROUP
    rows = min(blocks, _TOTALS) if totals else threads
    # Whole lines of the cache, as is what a block of neurons takes. And a page apart: a thread's
    # cache reads on behind the thread's own, and would take lines away from the next one.
    floats = -(-floats // 16) * 16 + _PAGE // FLOAT_BYTES
    return _Plan(numbers, neurons, width, blocks, threads, rows, floats)


class _Call:
    """A kernel's arguments by their names, of which it need not take all; and its workspace.

    scalars: of one element each, or one tensor of all. steps: the most that `run` is asked for.
    alone: on the calling thread only.
    """

    def __init__(
        self,
        kernel: _Kernel,
        z: Tensor,
        scalars: list[Tensor],
        channels: list[Tensor],
        steps: int,
        totals: int = 0,
        alone: bool = False,
    ) -> None:
        self._kernel = kernel
        most = 1 if alone else threads.available()
        self._plan = plan = _plan(kernel, z.shape, steps, totals > 0, most)
        self._numbers = plan.numbers[:]
        self._alive: dict[str, object] = {}
        self._by_steps: dict[str, tuple[int, int]] = {}
        # By torch, whose memory starts with a line of the cache.
        self._lines = torch.empty(plan.threads, plan.floats, dtype=torch.float32, device="cpu")
        self._totals = np.zeros((plan.rows, totals)) if totals else None
        if scalars:
            self.array("scalars", scalars[0] if len(scalars) == 1 else in_one(scalars))
        near = inner(z)
        for k, line in enumerate(channels):
            if f"channel{k}" in kernel.places:
                one = line.detach().reshape(-1, 1).expand(-1, near).reshape(-1)
                self.array(f"channel{k}", one.repeat(1 + -(-plan.width // max(len(one), 1))))

    def _set(self, name: str, value: int) -> None:
        place = self._kernel.places.get(name)
        if place is not None:
            self._numbers[place] = value

    def array(self, name: str, tensor: Tensor) -> int:
        """A tensor that is read or written, contiguous if it is written; its address."""
        if not tensor.is_contiguous():
            tensor = tensor.detach().contiguous()
        self._alive[name] = tensor
        address = tensor.data_ptr()
        self._set(name, address)
        return address

    def values(self, name: str, tensor: Tensor) -> None:
        """A tensor of one value a neuron, which may be one for all in memory."""
        single = not any(tensor.stride()) and tensor.numel() > 0
        self._set(f"stride_{name}", 0 if single else 1)
        if single:
            # To the bit, and quicker than torch.full.
            equal = arrays.array("f", ctypes.string_at(tensor.data_ptr(), FLOAT_BYTES) * GROUP)
            self._alive[name] = equal
            self._set(name, equal.buffer_info()[0])
        else:
            self.array(name, tensor)

    def steps(self, name: str, tensor: Tensor, held: bool = False) -> None:
        """A tensor of steps (T, N, ...), which `run` takes a stretch of, unless it is held."""
        address = self.array(name, tensor)
        stride = 0 if held else self._plan.neurons
        self._set(f"stride_{name}", stride)
        self._by_steps[name] = address, FLOAT_BYTES * stride

    def run(self, first: int, end: int) -> None:
        """From step first up to end."""
        self._set("time_steps", end - first)
        for name, (address, stride) in self._by_steps.items():
            self._set(name, address + first * stride)
        plan, totals = self._plan, self._totals
        threads.share_out(
            self._kernel.address,
            plan.blocks,
            self._numbers.buffer_info()[0],
            Rows(self._lines.data_ptr(), plan.threads, plan.floats * FLOAT_BYTES),
            Rows(0, plan.rows, 0)
            if totals is None
            else Rows(totals.ctypes.data, plan.rows, totals.strides[0]),
        )

    def prepare(self, time_steps: int, *changing: str) -> None:
        """For `run_on` alone, which gets these arrays, so that they need not be kept."""
        self._set("time_steps", time_steps)
        for name in changing:
            del self._alive[name]

    def run_on(self, addresses: dict[str, int]) -> None:
        """Over all steps at once, with these arrays; several threads may at the same time."""
        numbers = self._numbers[:]
        for name, address in addresses.items():
            if name in self._kernel.places:  # a step need not read its input
                numbers[self._kernel.places[name]] = address
        threads.run(self._kernel.address, self._plan.blocks, numbers.buffer_info()[0])

    def totals(self) -> np.ndarray:
        """What all threads added up."""
        assert self._totals is not None
        sums: np.ndarray = self._totals.sum(0)
        return sums
