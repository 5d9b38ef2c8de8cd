"""What a chip holds of a network: layers of integers, without behaviour.

A weight, bias or threshold here is 64 times the one of `spikestrap.Network`, a decay 4096 times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..choices import check_choice
from ..errors import SpikestrapError

Shape = tuple[int, ...]
Pair = tuple[int, int]
RESETS = ("zero", "subtract", "none")
MAX_NEURONS = 2**24  # of a layer; more than any chip has
WEIGHTS = (-256, 254)
BIAS = (-4096, 4095)
THRESHOLD = (1, 131071)
DECAY = (0, 4096)
STATE = (-(2**23) + 1, 2**23 - 1)
DELAY = (0, 62)


@dataclass(frozen=True, eq=False)
class Neuron:
    """CUBA-LIF; each parameter a number, or an array (C,), one a channel.

    current_decay, voltage_decay: 0 to 4096. threshold: 1 to 131071. v_init: the membrane's
    first value, 24 bits, 4096 times that of `spikestrap.Network`. reset: "zero" is Loihi's.
    """

    threshold: np.ndarray
    current_decay: np.ndarray = field(default_factory=lambda: np.array(4096))
    voltage_decay: np.ndarray = field(default_factory=lambda: np.array(0))
    v_init: np.ndarray = field(default_factory=lambda: np.array(0))
    reset: str = "zero"

    def __post_init__(self) -> None:
        limits = (("threshold", THRESHOLD), ("current_decay", DECAY), ("voltage_decay", DECAY))
        for name, (low, high) in (*limits, ("v_init", STATE)):
            object.__setattr__(self, name, integers(getattr(self, name), name, low, high, (0, 1)))
        check_choice("reset", self.reset, RESETS)


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers have.

    shape: of its output, (C,) or (C, H, W). neuron: None for a readout, which gives the mean
    of its input over time. delay: steps by which spikes leave late, a number or (C,).
    """

    shape: Shape
    neuron: Neuron | None = None
    delay: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if len(shape) not in (1, 3) or min(shape) < 1 or math.prod(shape) > MAX_NEURONS:
            raise SpikestrapError(
                f"shape must be (C,) or (C, H, W) of at most {MAX_NEURONS} neurons, got {shape}"
            )
        object.__setattr__(self, "shape", shape)
        if self.delay is not None:
            object.__setattr__(self, "delay", integers(self.delay, "delay", *DELAY, (0, 1)))
        neuron = self.neuron
        values = [] if neuron is None else [neuron.threshold, neuron.current_decay]
        values += [] if neuron is None else [neuron.voltage_decay, neuron.v_init]
        for value in (*values, *([] if self.delay is None else [self.delay])):
            if value.ndim and value.shape != shape[:1]:
                raise SpikestrapError(
                    f"a neuron's parameter has {value.size} values, expected one or {shape[0]}, "
                    "one a channel"
                )

    @property
    def neurons(self) -> int:
        """How many neurons, or values, it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """A held input x in [0, 1] as a bias current, round(weight (2 x - 1) + bias).

    Without a neuron, spikes come in, (T, N, ...), and it only says of what shape.
    """

    weight: int = 64
    bias: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "bias"):
            value = integers(getattr(self, name), name, -(2**24), 2**24, (0,))
            object.__setattr__(self, name, int(value))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """(C, H, W) to (C H W,), the last axis fastest."""


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """weight (out, in), bias (out,), recurrent (out, out): from its own spikes one step ago."""

    weight: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    bias: np.ndarray | None = None
    recurrent: np.ndarray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = integers(self.weight, "weight", *WEIGHTS, (2,))
        object.__setattr__(self, "weight", weight)
        if weight.shape[0] != self.neurons:
            raise SpikestrapError(
                f"weight has {weight.shape[0]} rows, expected {self.neurons}, one a neuron"
            )
        _set_bias(self, self.neurons)
        if self.recurrent is not None:
            recurrent = integers(self.recurrent, "recurrent weight", *WEIGHTS, (2,))
            object.__setattr__(self, "recurrent", recurrent)
            if recurrent.shape != (self.neurons,) * 2 or self.neuron is None:
                raise SpikestrapError(
                    f"recurrent weight has shape {recurrent.shape}, expected a layer with a "
                    f"neuron and {(self.neurons,) * 2}"
                )


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """weight (out, in / groups, height, width), bias (out,)."""

    weight: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 1, 1)))
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = integers(self.weight, "weight", *WEIGHTS, (4,))
        object.__setattr__(self, "weight", weight)
        if len(self.shape) != 3 or weight.shape[0] != self.shape[0]:
            raise SpikestrapError(
                f"weight has shape {weight.shape} and the layer {self.shape}: expected "
                "(C, in / groups, height, width) and (C, H, W)"
            )
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            pair = integers(np.broadcast_to(getattr(self, name), 2), name, least, 4096, (1,))
            object.__setattr__(self, name, (int(pair[0]), int(pair[1])))
        if self.groups < 1 or self.shape[0] % self.groups:
            raise SpikestrapError(
                f"groups must divide the {self.shape[0]} channels, got {self.groups}"
            )
        _set_bias(self, self.shape[0])

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W') for an input (C_in, H, W)."""
        channels = self.weight.shape[1] * self.groups
        if len(shape) != 3 or shape[0] != channels:
            raise SpikestrapError(f"expected an input ({channels}, H, W), got {shape}")
        sides = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                shape[1:], self.padding, self.dilation, self.weight.shape[2:], self.stride,
                strict=True,
            )
        )  # fmt: skip
        return (self.shape[0], *sides)


def integers(value: object, name: str, low: int, high: int, axes: tuple[int, ...]) -> np.ndarray:
    """The value as an int32 array with so many axes; raises unless whole and in [low, high]."""
    try:
        array = np.asarray(value)
        fine = array.dtype.kind in "iufb" and array.ndim in axes
        rounded = np.rint(array) if fine else array
        fine = fine and bool(np.all(array == rounded))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise SpikestrapError(f"{name}: expected whole numbers with {axes} axes, got {value!r:.80}")
    if array.size and not (array.min() >= low and array.max() <= high):
        raise SpikestrapError(
            f"{name}: expected numbers from {low} to {high}, got {array.min():g} to {array.max():g}"
        )
    return rounded.astype(np.int32)


def _set_bias(layer: Dense | Conv, size: int) -> None:
    if layer.bias is None:
        return
    bias = integers(layer.bias, "bias", *BIAS, (1,))
    if bias.shape != (size,):
        raise SpikestrapError(f"bias has shape {bias.shape}, expected ({size},)")
    object.__setattr__(layer, "bias", bias)
