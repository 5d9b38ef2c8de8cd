"""Runs a step on a kernel compiled from it where that can be, else on the reference.

Before a kernel is trusted, it is held against the reference on a small random input: what a
trace cannot see, such as arithmetic outside torch, shows there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import SpikestrapError, warn
from ..precision import whole, without_autocast
from ..random_state import random_state_kept
from . import backend, dynamo
from .backend import check_not_forced, fused_wanted
from .expression import Graph
from .reference import State, scan
from .replay import trace_of, unhooked
from .trace import Structure, Trace, Untraceable, trace

if TYPE_CHECKING:
    from ..neuron import Neuron

# Where torch rounds as it likes, square roots on CPUs among it; all else is exact.
_ROUGHLY = {"exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "pow"}
_PROBE_STEPS, _PROBE_SIZE = 5, 3
_GRADIENTS = "gradients"

# What the comparison with the reference came to: None, or what stands against the kernel.
_checked: dict[tuple[object, ...], str | None] = {}


class Explanation(NamedTuple):
    """backend: "compiled" (on a CPU), "triton" (on a GPU) or "reference"; reason: why that one."""

    backend: str
    reason: str


def explain(neuron: Neuron, z: Tensor) -> Explanation:
    """What `neuron(z)` runs on, and why; z as for the neuron, (T, N, ...).

    >>> import spikestrap as ss
    >>> z = torch.rand(4, 2, 3)
    >>> explain(ss.neuron.LIF(threshold=1.0, voltage_decay=0.1), z).backend
    'compiled'
    >>> class Noisy(ss.neuron.Neuron):
    ...     def init_state(self, z):
    ...         return ()
    ...     def step(self, z, state):
    ...         return (z > torch.rand_like(z)).to(z.dtype), state
    >>> explain(Noisy(), z)
    Explanation(backend='reference', reason='rand_like, which is random: draw noise in `extra`')
    """
    name = type(neuron).__name__
    z, *imag = (z.real, z.imag) if z.is_complex() else (z,)
    if not backend.takes_triton(z) or imag:
        z, *imag = map(whole, (z, *imag))
    try:
        if not fused_wanted(z, name):
            why = (
                f"forced, or within torch.func's transforms, or no kernels for {z.dtype} on "
                f"{z.device.type}, or no Triton for them"
            )
            return Explanation("reference", why)
    except SpikestrapError as error:
        return Explanation("reference", str(error))
    with without_autocast(z.device.type), random_state_kept(z.device):
        inputs = (z, *neuron.checked_extra(whole(z), z.shape[0]), *imag)
        found = usable(neuron, inputs, neuron.init_state(whole(z[0])))
    if isinstance(found, str):
        return Explanation("reference", found)
    operations = len(found.structure.nodes)
    kind = "triton" if backend.takes_triton(z) else "compiled"
    return Explanation(kind, f"the step was traced, {operations} values a neuron and step")


def run(
    neuron: Neuron, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    """`reference.scan` of the neuron's step, or the same compiled; arguments as there, but that
    inputs may be of half precision.
    """
    name = type(neuron).__name__
    if not fused_wanted(inputs[0], name):
        return _plain(neuron, inputs, state, time_steps)
    if torch.compiler.is_compiling():
        return dynamo.run(neuron, inputs, state, time_steps)
    found = usable(neuron, inputs, state)
    if isinstance(found, Trace):
        out: tuple[Tensor, State] = backend.kernels_for(inputs[0]).run(
            found, inputs, state, time_steps
        )
        return out
    check_not_forced(name, found)
    return _plain(neuron, inputs, state, time_steps)


def _plain(
    neuron: Neuron, inputs: tuple[Tensor, ...], state: State, time_steps: int
) -> tuple[Tensor, State]:
    """The same, step by step."""
    inputs = tuple(map(whole, inputs))
    return scan(neuron.step, inputs, state, time_steps, neuron.checkpoint_steps)


def usable(neuron: Neuron, inputs: tuple[Tensor, ...], state: State) -> Trace | str:
    """A trace that agrees with the reference, or why there is none."""
    z, *extra = (x[0] for x in inputs)
    try:
        traced = trace_of(neuron, z, state, tuple(extra))
    except Untraceable as reason:
        return str(reason)
    tensors = (*inputs, *state, *traced.scalars, *traced.channels)
    wanted = tuple(x.requires_grad and torch.is_grad_enabled() for x in tensors)
    # A step that goes by the input's size may be right on one and not on another.
    sizes = tuple(size for axis, size in enumerate(_probe_shape(inputs[0])) if axis != 1)
    key = (type(neuron), traced.number, wanted, z.device.type, z.dtype, sizes)
    if key not in _checked:
        _checked[key] = _objection(neuron, traced.structure, inputs, len(state), wanted)
    return _checked[key] or traced


def _objection(
    neuron: Neuron,
    structure: Structure,
    inputs: tuple[Tensor, ...],
    states: int,
    wanted: tuple[bool, ...],
) -> str | None:
    """What stands against the use of the kernel, and has been said by a warning; or None."""
    try:
        with unhooked(), random_state_kept(inputs[0].device):
            difference = _difference(neuron, structure, inputs, states, wanted)
    except Exception as error:  # whatever a compiler, a linker or a driver may raise
        if not backend.takes_triton(inputs[0]):
            raise
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        problem = f"Triton cannot run the kernel of its step ({why}), so the step is run"
        reason = f"a kernel that Triton cannot run: {why}"
    else:
        if difference is None:
            return None
        cause = (
            "where they are nearly 0, rounding alone does that"
            if difference == _GRADIENTS
            else "is there arithmetic in it that is not torch's?"
        )
        problem = (
            f"the kernel compiled from its step gives other {difference} than the step itself, "
            f"so the step is run; {cause}"
        )
        reason = f"a kernel that gives other {difference}"
    warn(f"{type(neuron).__name__}: {problem}")
    return reason


def _difference(
    neuron: Neuron,
    structure: Structure,
    inputs: tuple[Tensor, ...],
    states: int,
    wanted: tuple[bool, ...],
) -> str | None:
    """In what kernel and reference differ on a small random input, or None."""
    z = inputs[0]
    shape = _probe_shape(z)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float32).to(z.device)

    scale = z.detach()[:1, :_PROBE_SIZE].float().abs().amax() if z.numel() else torch.ones(())
    probe = [(4 * draw(_PROBE_STEPS, *shape) - 1) * (1 + torch.nan_to_num(scale))]
    probe += [draw(1 if x.shape[0] == 1 else _PROBE_STEPS, *shape) for x in inputs[1:]]
    leaves = [x.requires_grad_(want) for x, want in zip(probe, wanted, strict=False)]
    zs = (probe[0].to(z.dtype), *probe[1:])
    first = neuron.init_state(probe[0][0])  # once, as it may be drawn
    outs, grads = [], []
    for use_kernel in (True, False):
        start = tuple(
            s.detach().clone().requires_grad_(want)
            for s, want in zip(first, wanted[len(inputs) :], strict=False)
        )
        if use_kernel:
            again = trace(neuron.step, probe[0][0], start, tuple(x[0] for x in probe[1:]))
            if again.structure != structure:
                return "results by the input's size"
            spikes, last = backend.kernels_for(z).run(again, zs, start, _PROBE_STEPS)
        else:
            spikes, last = scan(neuron.step, tuple(map(whole, zs)), start, _PROBE_STEPS)
        outs.append([spikes.to(z.dtype).float(), *last])
        if any(wanted):
            generator.manual_seed(1)
            total = sum((x * draw(*x.shape)).sum() for x in outs[-1])
            of = [x for x in (*leaves, *start, *neuron.parameters()) if x.requires_grad]
            grads.append(_grad(total, of) if of else [])
    exact = _ROUGHLY.isdisjoint(
        structure.nodes[i].op
        for i in Graph(structure.nodes).needed((structure.spikes, *structure.state))
    )
    roundoff = 0 if z.dtype is torch.float32 else torch.finfo(z.dtype).eps
    rough = 0 if exact else 1e-4
    tolerances = [max(rough, roundoff), *[rough] * states]
    if not all(map(_close, *outs, tolerances)):
        return "spikes or states"
    if grads and not all(_close(a, b, max(1e-3, roundoff)) for a, b in zip(*grads, strict=True)):
        return _GRADIENTS
    return None


def _probe_shape(z: Tensor) -> tuple[int, ...]:
    """(N, C, ...) of a small input like z (T, N, C, ...), with all of its channels."""
    sizes = enumerate(z.shape[1:])
    return tuple(size if axis == 1 else min(size, _PROBE_SIZE) or 1 for axis, size in sizes)


def _grad(total: Tensor | float, leaves: list[Tensor]) -> list[Tensor]:
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return False
    a, b = torch.nan_to_num(a.detach()), torch.nan_to_num(b.detach())
    largest = b.abs().max() if b.numel() else b.new_zeros(())
    # Below the normal floats a kernel's exp is 0 where torch's is not.
    return bool(((a - b).abs() <= tolerance * largest + torch.finfo(torch.float32).tiny).all())
