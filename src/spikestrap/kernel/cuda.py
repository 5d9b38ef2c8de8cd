"""Any traced step over all time steps on a GPU: the operator `spikestrap::scan_triton`.

In Triton's interpreter (TRITON_INTERPRET=1) it takes tensors on the CPU.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
import math
from typing import Any

import torch
from torch import Tensor

from .derivative import Wanted
from .reference import State
from .scanning import Scan, empty_gradients, empty_results, inner
from .trace import Trace, in_one, structure_of
from .triton_source import Source, backward_source, forward_source

# Neurons a program, and the warps that share them.
_BLOCK, _WARPS = 256, 4


def run(
    traced: Trace, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    """As `reference.scan` of the traced step, for inputs in float32 or half precision and float32
    states on a GPU. The spikes are of the first input's dtype.
    """
    return _operator(traced, inputs, state, time_steps, stretch_of)


def stretch_of(time_steps: int, states: int) -> int:
    """Steps a stretch of the backward pass: about as many as there are stretches, so that the
    states between stretches and what is saved within one take least memory.
    """
    return -(-time_steps // math.isqrt(time_steps))


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
    out = empty_results(z.new_empty, z.shape[1:], len(state), time_steps, stretch)
    spikes, lasts, borders = out[0], out[1 : 1 + len(state)], out[1 + len(state) :]
    call = _Call(_forward_kernel(number), inputs, state, scalars, channels, time_steps, stretch)
    call.arrays("last", lasts)
    call.arrays("border", borders)
    call.run(spikes=spikes)
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
    kernel = _backward_kernel(number, wanted)
    call = _Call(kernel, inputs, state, scalars, channels, time_steps, stretch)
    grad_inputs = empty_gradients(z.new_empty, wanted, inputs)
    grad_state = [z.new_empty(z.shape[1:], dtype=torch.float32) for _ in state]
    by_program = [z.new_empty(call.programs, dtype=torch.float32) for _ in wanted.scalars]
    by_neuron = [z.new_empty(z.shape[1:], dtype=torch.float32) for _ in wanted.channels]
    call.steps("grad_spikes", grads[0], held=False)
    for k, grad in enumerate(grads[1:]):
        call.values(f"grad_last{k}", grad)
    call.arrays("border", borders)
    call.arrays("grad_x", grad_inputs, wanted.inputs)
    call.arrays("grad_s", grad_state)
    call.arrays("grad_scalar", by_program, wanted.scalars)
    call.arrays("grad_channel", by_neuron, wanted.channels)
    scratch = z.new_empty((stretch * kernel.saved, *z.shape[1:]), dtype=torch.float32)
    call.run(scratch=scratch)
    grad_scalars = [
        parts.sum(dtype=torch.float64).to(torch.float32).reshape(scalars[k].shape)
        for k, parts in zip(wanted.scalars, by_program, strict=True)
    ]
    grad_channels = [
        line.view(z.shape[1], -1, inner(z))
        .sum((0, 2), dtype=torch.float64)
        .to(torch.float32)
        .reshape(channels[k].shape)
        for k, line in zip(wanted.channels, by_neuron, strict=True)
    ]
    return [*grad_inputs, *grad_state, *grad_scalars, *grad_channels]


_operator = Scan("scan_triton", ("cuda", "cpu"), _forward, _backward)


class _Kernel:
    """A kernel ready to run, which Triton compiles for the dtypes that it is first called with."""

    def __init__(self, source: Source) -> None:
        self.arguments, self.saved = source.arguments, source.saved
        # Triton reads a function's source, by way of `inspect`: it need not be in a file.
        name = f"<kernel {hashlib.sha256(source.code.encode()).hexdigest()[:16]}>"
        linecache.cache[name] = (len(source.code), None, source.code.splitlines(True), name)
        names: dict[str, Any] = {"__name__": "spikestrap.kernel.generated"}
        exec(compile(source.code, name, "exec"), names)
        self.function = names["kernel"]


@functools.cache
def _forward_kernel(number: int) -> _Kernel:
    return _Kernel(forward_source(structure_of(number)))


@functools.cache
def _backward_kernel(number: int, wanted: Wanted) -> _Kernel:
    return _Kernel(backward_source(structure_of(number), wanted))


class _Call:
    """A kernel's arguments by their names, of which it need not take all."""

    def __init__(
        self,
        kernel: _Kernel,
        inputs: list[Tensor],
        state: list[Tensor],
        scalars: list[Tensor],
        channels: list[Tensor],
        time_steps: int,
        stretch: int,
    ) -> None:
        z = inputs[0]
        neurons = math.prod(z.shape[1:])
        self._kernel, self._z = kernel, z
        self.programs = -(-neurons // _BLOCK)
        self._values: dict[str, Tensor | int] = {
            "neurons": neurons,
            "inner": inner(z),
            "channels": max(math.prod(z.shape[2:3]), 1),
            "time_steps": time_steps,
            "stretch": stretch,
        }
        for k, x in enumerate(inputs):
            self.steps(f"x{k}", x, held=x.shape[0] == 1)
        for k, start in enumerate(state):
            self.values(f"s{k}", start)
        if scalars:
            self._values["scalars"] = in_one(scalars)
        self.arrays("channels", [line.detach().reshape(-1) for line in channels])

    def arrays(self, name: str, tensors: list[Tensor], numbers: tuple[int, ...] = ()) -> None:
        """Contiguous tensors, by a name that all have and the number of each."""
        for k, tensor in zip(numbers or range(len(tensors)), tensors, strict=True):
            self._values[f"{name}{k}"] = tensor

    def steps(self, name: str, tensor: Tensor, held: bool) -> None:
        """A tensor of steps (T, N, ...), or (1, N, ...) if it is held."""
        self._values[name] = tensor.detach().contiguous()
        self._values[f"stride_{name}"] = 0 if held else math.prod(tensor.shape[1:])

    def values(self, name: str, tensor: Tensor) -> None:
        """A tensor of one value a neuron, which may be one for all in memory."""
        tensor = tensor.detach()
        single = tensor.numel() > 0 and not any(tensor.stride())
        self._values[name] = tensor if single else tensor.contiguous()
        self._values[f"stride_{name}"] = 0 if single else 1

    def run(self, **more: Tensor) -> None:
        """On the GPU that the tensors are on."""
        values = self._values | more
        arguments = {name: values[name] for name in self._kernel.arguments}
        if self.programs:
            with torch.cuda.device_of(self._z):
                self._kernel.function[(self.programs,)](
                    **arguments, BLOCK=_BLOCK, num_warps=_WARPS, enable_fp_fusion=False
                )
