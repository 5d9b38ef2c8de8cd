"""What the operators that run a traced step over time have in common: how torch sees them.

Such an operator gets the number of a structure, and compiles that structure's kernels when it
first needs them. Being an operator, it is one node to torch.compile. Outside of that, where the
operator's dispatch would take longer than a small layer's work, it is a function to autograd
with the same forward and backward pass. A second derivative is refused, since that of a
surrogate means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .autograd import refuse_second_derivative
from .derivative import Wanted
from .memory import in_memory
from .reference import State
from .trace import Trace

# (number, inputs, state, scalars, channels, time_steps, stretch) to results, as
# `empty_results` makes them. Scalars are of one element each, or one tensor of all.
Forward = Callable[..., list[Tensor]]
# (number, wanted, grads, inputs, state, scalars, channels, borders, stretch) to gradients of
# the wanted inputs, of all states, of the wanted scalars and channels.
Backward = Callable[..., list[Tensor]]
# Makes a tensor of a shape, as `Tensor.new_empty` does.
New = Callable[..., Tensor]


def empty_results(
    new: New, shape: Sequence[int], states: int, time_steps: int, stretch: int
) -> list[Tensor]:
    """Of neurons of that shape (N, ...) spikes, last states, and the states at the starts of all
    stretches but the first: each state's (stretches - 1, N, ...).
    """
    borders = -(-time_steps // stretch) - 1
    out = [new((time_steps, *shape))]
    out += [new(shape, dtype=torch.float32) for _ in range(states)]
    return out + [new((borders, *shape), dtype=torch.float32) for _ in range(states)]


def empty_gradients(new: New, wanted: Wanted, inputs: list[Tensor]) -> list[Tensor]:
    """Of the wanted inputs, (T, N, ...); zeros of those that are held, (1, N, ...)."""
    return [
        x.new_zeros(x.shape) if k in wanted.held else new(x.shape, dtype=x.dtype)
        for k, x in ((k, inputs[k]) for k in wanted.inputs)
    ]


def inner(z: Tensor) -> int:
    """How many neighbours in memory share a channel, axis 2 of z (T, N, C, ...).

    >>> inner(torch.zeros(4, 2, 3)), inner(torch.zeros(4, 2, 3, 5, 6))
    (1, 30)
    """
    return max(math.prod(z.shape[3:]), 1)


class Scan:
    """The operator `spikestrap::NAME` and `spikestrap::NAME_backward`.

    forward, backward: what computes them, for float32 states on devices of these types.
    """

    def __init__(
        self, name: str, device_types: tuple[str, ...], forward: Forward, backward: Backward
    ) -> None:
        def fake(number: int, inputs: Any, state: Any, *rest: Any) -> list[Tensor]:
            z = inputs[0]
            return empty_results(z.new_empty, z.shape[1:], len(state), *rest[2:])

        def run_back(number: int, grads: Any, inputs: Any, *rest: Any) -> list[Tensor]:
            *others, want_inputs, want_scalars, want_channels = rest
            held = tuple(k for k in want_inputs if inputs[k].shape[0] == 1)
            wanted = Wanted(tuple(want_inputs), tuple(want_scalars), tuple(want_channels), held)
            return backward(number, wanted, grads, inputs, *others)

        def fake_back(number: int, grads: Any, *lists: Any) -> list[Tensor]:
            inputs, state, scalars, channels, *_, want_inputs, want_scalars, want_channels = lists
            like = [inputs[k] for k in want_inputs] + state
            like += [scalars[k] for k in want_scalars] + [channels[k] for k in want_channels]
            return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in like]

        self._operator = torch.library.custom_op(
            f"spikestrap::{name}",
            forward,
            mutates_args=(),
            device_types=device_types,
            schema="(int number, Tensor[] inputs, Tensor[] state, Tensor[] scalars, "
            "Tensor[] channels, int time_steps, int stretch) -> Tensor[]",
        )
        self._operator.register_fake(fake)
        self._back = torch.library.custom_op(
            f"spikestrap::{name}_backward",
            run_back,
            mutates_args=(),
            device_types=device_types,
            schema="(int number, Tensor[] grads, Tensor[] inputs, Tensor[] state, "
            "Tensor[] scalars, Tensor[] channels, Tensor[] borders, int stretch, "
            "int[] want_inputs, int[] want_scalars, int[] want_channels) -> Tensor[]",
        )
        self._back.register_fake(fake_back)
        self.forward, self._run_back = forward, run_back
        self._operator.register_autograd(self._backward, setup_context=_note)
        self._back.register_autograd(refuse_second_derivative)

    def __call__(
        self,
        traced: Trace,
        inputs: tuple[Tensor, ...],
        state: State,
        time_steps: int,
        stretch_of: Callable[[int, int], int],
    ) -> tuple[Tensor, State]:
        """As `reference.scan` of the traced step.

        stretch_of: (time_steps, states) to how many steps a stretch has: where gradients are
        wanted, the backward pass goes back over the steps by stretches, from the states at
        their starts.
        """
        number, states = traced.number, len(state)
        lists = (list(inputs), list(state), traced.scalars, traced.channels)
        trains = torch.is_grad_enabled() and any(x.requires_grad for part in lists for x in part)
        stretch = stretch_of(time_steps, states) if trains else time_steps
        flat = [x for part in lists for x in part]
        if in_memory(*flat):
            # One tensor for autograd to keep instead of several, where it has no part in them.
            constant = not any(x.requires_grad for x in traced.scalars)
            if traced.scalars and constant and forward_ad._current_level < 0:
                lists = (*lists[:2], [traced.packed], traced.channels)
                flat = [x for part in lists for x in part]
            call = self, number, [len(part) for part in lists], time_steps, stretch
            out = _Function.apply(call, *flat)
        else:
            out = self._operator(number, *lists, time_steps, stretch)
        return out[0], tuple(out[1 : 1 + states])

    def backward(self, ctx: Any, grads: Sequence[Tensor | None]) -> list[list[Tensor | None]]:
        """Gradients of inputs, state, scalars and channels; `ctx` as `_note` left it."""
        saved = iter(ctx.saved_tensors)
        *lists, borders = [[next(saved) for _ in range(length)] for length in ctx.lengths]
        z, states = lists[0][0], ctx.lengths[1]
        of_spikes, *of_states = grads[: 1 + states]
        if of_spikes is None:
            of_spikes = z.new_zeros((ctx.time_steps, *z.shape[1:]))
        nothing = z.new_zeros((), dtype=torch.float32).expand(z.shape[1:])
        last = [of_spikes, *(nothing if grad is None else grad for grad in of_states)]
        wanted = list(ctx.wanted)
        # With a graph to be made of the backward pass, the operator, which refuses the next.
        quick = in_memory(z, *last) and not torch.is_grad_enabled()
        run = self._run_back if quick else self._back
        found = iter(
            run(ctx.number, last, *lists, borders, ctx.stretch, wanted[0], wanted[2], wanted[3])
        )
        wanted[1] = list(range(states))
        out: list[list[Tensor | None]] = [[None] * len(part) for part in lists]
        for part, indices in zip(out, wanted, strict=True):
            for k in indices:
                part[k] = next(found)
        return out

    def _backward(self, ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        return (None, *self.backward(ctx, grads), None, None)


class _Function(torch.autograd.Function):
    """The operator of a `Scan` without its dispatch."""

    @staticmethod
    def forward(
        ctx: Any, call: tuple[Scan, int, list[int], int, int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        scan, number, lengths, time_steps, stretch = call
        given = iter(tensors)
        lists = [[next(given) for _ in range(length)] for length in lengths]
        out = scan.forward(number, *lists, time_steps, stretch)
        ctx.scan = scan
        _note(ctx, (number, *lists, time_steps, stretch), out)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        parts = ctx.scan.backward(ctx, grads)
        return (None, *(grad for part in parts for grad in part))


def _note(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """What the backward pass needs."""
    number, *lists, time_steps, stretch = inputs
    ctx.set_materialize_grads(False)
    ctx.number, ctx.time_steps, ctx.stretch = number, time_steps, stretch
    ctx.wanted = [[k for k, x in enumerate(part) if x.requires_grad] for part in lists]
    lists.append(output[1 + len(lists[1]) :])
    ctx.lengths = [len(part) for part in lists]
    ctx.save_for_backward(*(tensor for part in lists for tensor in part))
