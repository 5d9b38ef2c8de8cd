"""A neuron's parameters: a number or one value a channel, fixed or learnable, in bounds."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import SpikestrapError
from ..straight_through import straight_through

if TYPE_CHECKING:
    from .base import Neuron

Value = float | Tensor


class Bounds(NamedTuple):
    """A closed interval; `positive` leaves out its lower end 0, `whole` all that is no integer.

    Whole numbers cannot be learnt.
    """

    low: float = -math.inf
    high: float = math.inf
    positive: bool = False
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number " if self.whole else ""
        if self.positive:
            return f"{kind}> 0"
        if self.high == math.inf:
            return f"{kind}>= {self.low:g}"
        return f"{kind}in [{self.low:g}, {self.high:g}]"


DECAY = Bounds(0.0, 1.0)
THRESHOLD = Bounds(0.0, positive=True)
NOT_NEGATIVE = Bounds(0.0)
COUNT = Bounds(0.0, whole=True)
ANY = Bounds()
# The lowest value to which training can push what must stay positive.
_SMALLEST = 1e-6


def register(module: nn.Module, name: str, value: Value, bounds: Bounds, learnable: bool) -> None:
    """Registers `value` under `name`: a buffer, or an nn.Parameter where it is learnable.

    A number becomes a tensor (), a tensor (C,) stays one; both float32.
    """
    where = f"{type(module).__name__}: {name}"
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise SpikestrapError(f"{where} must be a number or a tensor (C,), got {value!r}") from None
    if tensor.ndim > 1 or tensor.numel() == 0:
        raise SpikestrapError(
            f"{where} must be a number or a tensor (C,), got shape {tuple(tensor.shape)}"
        )
    fine = torch.isfinite(tensor) & (tensor >= bounds.low) & (tensor <= bounds.high)
    if bounds.positive:
        fine &= tensor > 0
    if bounds.whole:
        fine &= tensor == tensor.round()
    if not bool(fine.all()):
        worst = tensor[~fine].flatten()[0].item()
        limits = "finite" if bounds == ANY else str(bounds)
        raise SpikestrapError(f"{where} must be {limits}, got {worst:g}")
    if learnable:
        module.register_parameter(name, nn.Parameter(tensor))
    else:
        module.register_buffer(name, tensor)


def check_learnable(module: nn.Module, learnable: Collection[str], known: Collection[str]) -> None:
    """Raises unless every name in `learnable` is one of `known`."""
    if isinstance(learnable, str):
        raise SpikestrapError(
            f"{type(module).__name__}: learnable must be a tuple of names, got {learnable!r}"
        )
    for name in learnable:
        if name not in known:
            raise SpikestrapError(
                f"{type(module).__name__}: learnable may hold {', '.join(known)}; got {name!r}"
            )


def value_of(module: nn.Module, name: str, bounds: Bounds) -> Tensor:
    """The parameter, kept in its bounds where training can move it, and able to come back."""
    parameter: Tensor = getattr(module, name)
    # By its place: a compiler, or a functional call, puts plain tensors there.
    if name not in module._parameters or bounds == ANY:
        return parameter
    return straight_through(parameter, torch.clamp, *_limits(bounds))


def keep_in_bounds(neuron: Neuron) -> None:
    """Moves what training pushed out of its bounds back to their end, in place."""
    for part in neuron.modules():  # a neuron may run another
        for name, bounds in getattr(part, "bounds", {}).items():
            parameter = part._parameters.get(name)
            if parameter is not None and bounds != ANY:
                parameter.data.clamp_(*_limits(bounds))


def _limits(bounds: Bounds) -> tuple[float, float]:
    return max(bounds.low, _SMALLEST) if bounds.positive else bounds.low, bounds.high


def per_channel(parameter: Tensor, z: Tensor) -> Tensor:
    """A parameter () or (C,), shaped to broadcast against z (N, C, ...)."""
    return parameter.view(-1, *[1] * (z.ndim - 2)) if parameter.ndim else parameter


def register_all(neuron: Neuron, learnable: Collection[str], **values: Value) -> None:
    """Registers a neuron's parameters, each within its entry in `neuron.bounds`, if there is one.

    Raises SpikestrapError for a value out of bounds and for a name in `learnable` that is
    none of those that can be learnt.
    """
    bounds = {**dict.fromkeys(values, ANY), **neuron.bounds}
    # An iterator can be gone through but once.
    learnable = learnable if isinstance(learnable, str) else tuple(learnable)
    check_learnable(neuron, learnable, [name for name, kept in bounds.items() if not kept.whole])
    for name, value in values.items():
        register(neuron, name, value, bounds[name], name in learnable)


def values_of(neuron: Neuron, z: Tensor, *names: str) -> tuple[Tensor, ...]:
    """The parameters of those names, each () or (C,), in bounds and in z's precision."""
    bounds = neuron.bounds
    return tuple(value_of(neuron, name, bounds.get(name, ANY)).to(z.dtype) for name in names)


def broadcast(neuron: Neuron, z: Tensor, *names: str) -> tuple[Tensor, ...]:
    """The same, shaped to broadcast against z (N, C, ...): what `step` calculates with.

    >>> import spikestrap as ss
    >>> lif = ss.neuron.LIF(threshold=1.0, voltage_decay=torch.tensor([0.1, 0.2]))
    >>> [tuple(p.shape) for p in broadcast(lif, torch.rand(5, 2, 3), "threshold", "voltage_decay")]
    [(), (2, 1)]
    """
    return tuple(per_channel(value, z) for value in values_of(neuron, z, *names))


def initial(neuron: Neuron, z: Tensor, name: str) -> Tensor:
    """A parameter as a state before the first step: one value a neuron, shaped like z (N, ...)."""
    (value,) = values_of(neuron, z, name)
    return per_channel(value.to(z.device), z).expand_as(z)


def check_channels(neuron: Neuron, z: Tensor) -> None:
    """Raises unless each parameter (C,) has as many values as z (N, C, ...) has channels."""
    for name in neuron.bounds:
        parameter = getattr(neuron, name)
        if parameter.ndim and (z.ndim < 2 or z.shape[1] != parameter.shape[0]):
            raise SpikestrapError(
                f"{type(neuron).__name__}: {name} has {parameter.shape[0]} values, one a "
                f"channel, but one step of the input has shape {tuple(z.shape)}: "
                f"expected (N, {parameter.shape[0]}, ...)"
            )
