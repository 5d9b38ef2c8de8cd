"""Runs a network of integer layers, layer by layer over all time steps of a batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..counts import whole_number
from ..errors import SpikestrapError
from ..precision import whole, without_autocast
from . import dynamics
from .layers import RESETS, Conv, Dense, Flatten, Input, Layer, Neuron, Shape

# Adding up the rows of the neurons that spiked beats a dense product where few do.
EVENT_DRIVEN_BELOW = 0.25
_BATCH_BYTES = 2**27  # of spikes and sums at a time


@dataclass(frozen=True)
class Result:
    """What a run gave.

    logits: float64 (N, out), the readout's mean over time; of a network without readout the
    rates of its last layer. events: spikes that each layer with a neuron fired, their sum over
    samples, steps and neurons, by the layer's number; with those that a delay has arrive too late.
    neuron_steps: neurons x steps x samples.
    """

    logits: np.ndarray
    events: dict[int, int]
    neuron_steps: int

    @property
    def event_rate(self) -> float:
        """Spikes a neuron and step."""
        return sum(self.events.values()) / self.neuron_steps if self.neuron_steps else 0.0


class Network:
    """Integer layers in a row, the first an `Input`.

    pipelined: every layer hands its spikes on one step late, as between cores of a chip.
    time_steps: T it was trained for, which `run` takes by default; None if that is not known, where
    spikes are run for as many as they have.
    Raises SpikestrapError where shapes do not fit together.

    >>> neuron = Neuron(threshold=np.array(64))
    >>> net = Network([Input((2,), neuron), Dense((1,), weight=np.array([[64, -64]]))])
    >>> net.run(np.array([[1.0, 0.0]]), 4).logits.tolist()          # 64 > 64 never, 128 does
    [[0.5]]
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        pipelined: bool = False,
        time_steps: int | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.pipelined = pipelined
        self.time_steps = time_steps
        if not self.layers or not isinstance(self.layers[0], Input):
            raise SpikestrapError("fixed.Network: expected an Input as first layer")
        shape = self.layers[0].shape
        for number, layer in enumerate(self.layers[1:], 1):
            try:
                shape = _output_shape(layer, shape)
            except SpikestrapError as error:
                raise SpikestrapError(
                    f"layer {number} ({type(layer).__name__}): {error}"
                ) from error
            if layer.neuron is None and not isinstance(layer, Flatten) and number < len(layers) - 1:
                raise SpikestrapError(
                    f"layer {number} ({type(layer).__name__}): only the last may lack a neuron"
                )

    def run(
        self,
        x: np.ndarray | Tensor,
        time_steps: int | None = None,
        *,
        reset_interval: int | None = None,
    ) -> Result:
        """Runs inputs from fresh states.

        x: (N, ...) in [0, 1], held; or spikes 0 and 1, (T, N, ...), if the Input has no neuron.
        Features may be flat or images where the sizes agree. reset_interval: the states of
        layer l, counted without Flatten, are zeroed before steps l, l + interval, ..., as netx
        does on the chip.
        """
        x, time_steps = self._check(x, time_steps)
        held = self.layers[0].neuron is not None
        logits, events = [], dict.fromkeys(self._spiking(), 0)
        size = self._batch_size(time_steps)
        samples = x.shape[0] if held else x.shape[1]
        for start in range(0, samples, size):
            part = x[start : start + size] if held else x[:, start : start + size]
            found = [
                (number, int(np.count_nonzero(fired)), mean)
                for number, fired, _, mean in self._layers(part, time_steps, reset_interval)
            ]
            for number, count, _ in found:
                if number in events:
                    events[number] += count
            logits.append(found[-1][2])
        neurons = sum(self.layers[number].neurons for number in events)
        return Result(np.concatenate(logits), events, neurons * time_steps * samples)

    def spikes(
        self,
        x: np.ndarray | Tensor,
        time_steps: int | None = None,
        *,
        reset_interval: int | None = None,
        delayed: bool = True,
    ) -> dict[int, np.ndarray]:
        """Spikes uint8 (T, N, ...) of every layer with a neuron, by its number; see `run`.

        delayed: as they leave their layer, so that a delay may push some past the last step; else
        as they were fired.
        """
        x, time_steps = self._check(x, time_steps)
        shapes = {number: self.layers[number].shape for number in self._spiking()}
        return {
            number: (sent if delayed else fired).reshape(*sent.shape[:2], *shapes[number])
            for number, fired, sent, _ in self._layers(x, time_steps, reset_interval)
            if number in shapes
        }

    def delayed(self, layer: Layer, spikes: np.ndarray) -> np.ndarray:
        """Spikes (T, N, M) of one of the layers as they leave it."""
        one_more = self.pipelined and layer.neuron is not None
        delay = np.zeros(1, int) if layer.delay is None else np.atleast_1d(layer.delay)
        delay = delay + one_more
        if not delay.any():
            return spikes
        late = np.zeros_like(spikes)
        each = np.repeat(delay, layer.neurons // len(delay))
        for steps in np.unique(each):
            if steps < len(spikes):
                late[steps:, :, each == steps] = spikes[: len(spikes) - steps, :, each == steps]
        return late

    def _spiking(self) -> list[int]:
        return [n for n, layer in enumerate(self.layers) if layer.neuron is not None]

    def _batch_size(self, time_steps: int) -> int:
        widest = max(layer.neurons for layer in self.layers)
        return max(1, _BATCH_BYTES // (8 * widest * time_steps))

    def _check(self, x: np.ndarray | Tensor, time_steps: int | None) -> tuple[np.ndarray, int]:
        """The input as (N, M) or spikes (T, N, M), and T."""
        entry = self.layers[0]
        time_steps = self.time_steps if time_steps is None else time_steps
        array = whole(x.detach()).cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        lead = 1 if entry.neuron is not None else 2
        if time_steps is None and lead == 2 and array.ndim:
            time_steps = len(array)  # spikes have their steps in front
        if time_steps is None:
            raise SpikestrapError(
                f"fixed.Network: it holds no number of time steps to run input {array.shape} for: "
                "expected one, as in run(x, time_steps)"
            )
        time_steps = whole_number("time_steps", time_steps, 1)
        if (
            array.ndim <= lead
            or math.prod(array.shape[lead:]) != entry.neurons
            or (lead == 2 and array.shape[0] != time_steps)
        ):
            wanted = "(N, ...)" if lead == 1 else f"({time_steps}, N, ...)"
            raise SpikestrapError(
                f"fixed.Network: expected an input {wanted} of {entry.neurons} features "
                f"{entry.shape}, got shape {array.shape}"
            )
        if array.size == 0:
            raise SpikestrapError(f"fixed.Network: the input is empty, shape {array.shape}")
        if lead == 1:
            if array.dtype.kind != "f":
                raise SpikestrapError(
                    f"fixed.Network: expected a floating-point input, got {array.dtype}; "
                    "scale integer images first, as in x / 255"
                )
            if not np.isfinite(array).all():
                raise SpikestrapError("fixed.Network: the input holds NaN or inf")
            return array.reshape(len(array), -1).astype(np.float32), time_steps
        if array.dtype.kind not in "biuf":
            raise SpikestrapError(f"fixed.Network: expected numbers as input, got {array.dtype}")
        if not np.isin(array, (0, 1)).all():
            raise SpikestrapError(
                "fixed.Network: expected spikes, 0 or 1, as input, got values from "
                f"{array.min():g} to {array.max():g}"
            )
        return array.reshape(*array.shape[:2], -1).astype(np.uint8), time_steps

    def _layers(
        self, x: np.ndarray, time_steps: int, reset_interval: int | None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Layer by layer its number, spikes (T, N, M) as they were fired and as they leave, and the
        mean (N, M) of the latter.
        """
        shape = self.layers[0].shape
        spikes = x
        places = itertools.count()
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Flatten):
                continue
            zero_at = _zero_at(time_steps, reset_interval, next(places))
            if isinstance(layer, Input):
                if layer.neuron is not None:
                    spikes = _run_input(layer, x, time_steps, zero_at)
            else:
                sums = _sums(layer, spikes, shape)
                if layer.neuron is None:
                    yield number, sums, sums, _readout(layer, sums)
                    return
                spikes = _run(layer, sums, zero_at, None)
            shape, fired = layer.shape, spikes
            spikes = self.delayed(layer, fired)
            yield number, fired, spikes, spikes.mean(0)


def _output_shape(layer: Layer, shape: Shape) -> Shape:
    if isinstance(layer, Input):
        raise SpikestrapError("an Input can only be the first layer")
    if isinstance(layer, Dense):
        if layer.weight.shape[1] != math.prod(shape):
            raise SpikestrapError(
                f"weight takes {layer.weight.shape[1]} inputs, the layer before has {shape}"
            )
        return layer.shape
    found = layer.output_shape(shape) if isinstance(layer, Conv) else (math.prod(shape),)
    if found != layer.shape:
        raise SpikestrapError(f"from {shape} its output is {found}, but it says {layer.shape}")
    return found


def _zero_at(time_steps: int, interval: int | None, place: int) -> np.ndarray:
    if interval is None:
        return np.zeros(time_steps, bool)
    interval = whole_number("reset_interval", interval, 1)
    steps = np.arange(time_steps)
    return (steps >= place) & ((steps - place) % interval == 0)


def _run_input(layer: Input, x: np.ndarray, time_steps: int, zero_at: np.ndarray) -> np.ndarray:
    # In the precision and the form in which a network of precision="loihi" computes it.
    weight, bias = np.float32(2 * layer.weight / 64), np.float32((layer.bias - layer.weight) / 64)
    current = np.clip(np.rint((x * weight + bias) * np.float32(64)), -4096, 4095).astype(np.int32)
    spikes = np.empty((time_steps, *current.shape), np.uint8)
    dynamics.run(None, current, None, *_state(layer, len(x)), zero_at, spikes, None)
    return spikes


def run_layer(
    layer: Dense | Conv, spikes: np.ndarray, *, zero_before: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """One layer alone, without its delay: spikes uint8 and currents u int32, (T, N, ...).

    spikes: 0 and 1, (T, N, ...), what comes in. zero_before: steps before which the state is
    zeroed. Raises SpikestrapError for a recurrent layer or one without neuron.
    """
    if layer.neuron is None or getattr(layer, "recurrent", None) is not None:
        raise SpikestrapError("run_layer: expected a layer with a neuron and without recurrence")
    flat = spikes.reshape(*spikes.shape[:2], -1).astype(np.uint8)
    sums = _sums(layer, flat, spikes.shape[2:])
    zero_at = np.isin(np.arange(len(spikes)), zero_before)
    currents = np.empty(sums.shape, np.int32)
    out = _run(layer, sums, zero_at, currents)
    shape = (*spikes.shape[:2], *layer.shape)
    return out.reshape(shape), currents.reshape(shape)


def _run(
    layer: Layer, sums: np.ndarray, zero_at: np.ndarray, currents: np.ndarray | None
) -> np.ndarray:
    assert isinstance(layer, Dense | Conv)
    spikes = np.empty(sums.shape, np.uint8)
    bias = np.zeros(layer.shape[0], np.int32) if layer.bias is None else layer.bias
    bias = np.repeat(bias, layer.neurons // len(bias))[None]
    recurrent = getattr(layer, "recurrent", None)
    rows = None if recurrent is None else np.ascontiguousarray(recurrent.T)
    dynamics.run(sums, bias, rows, *_state(layer, sums.shape[1]), zero_at, spikes, currents)
    return spikes


def _state(layer: Layer, samples: int) -> tuple[object, ...]:
    """u, v (N, M), the parameters (M,), and the reset's number."""
    neuron = layer.neuron
    assert isinstance(neuron, Neuron)

    def spread(value: np.ndarray) -> np.ndarray:
        per_channel = np.broadcast_to(value, layer.shape[0])
        return np.repeat(per_channel, layer.neurons // layer.shape[0])

    u = np.zeros((samples, layer.neurons), np.int32)
    v = np.tile(spread(neuron.v_init), (samples, 1))
    values = (neuron.current_decay, neuron.voltage_decay, neuron.threshold)
    return (u, v, *(spread(value) for value in values), RESETS.index(neuron.reset))


def _sums(layer: Layer, spikes: np.ndarray, shape: Shape) -> np.ndarray:
    """Weighted spikes, int32 (T, N, M); the products in floating point are exact."""
    with without_autocast("cpu"):  # in half precision they would not be
        return _products(layer, spikes, shape)


def _products(layer: Layer, spikes: np.ndarray, shape: Shape) -> np.ndarray:
    steps, samples = spikes.shape[:2]
    flat = spikes.reshape(steps * samples, -1)
    if isinstance(layer, Dense):
        rows = np.ascontiguousarray(layer.weight.T)
        if np.count_nonzero(flat) < EVENT_DRIVEN_BELOW * flat.size:
            sums = np.empty((len(flat), layer.neurons), np.int32)
            dynamics.gather_rows(flat, rows, sums)
        else:
            exact = _exact(layer.weight)
            sums = (torch.from_numpy(flat).to(exact) @ torch.from_numpy(rows).to(exact)).numpy()
    else:
        assert isinstance(layer, Conv)
        exact = _exact(layer.weight)
        sums = F.conv2d(
            torch.from_numpy(flat.reshape(-1, *shape)).to(exact),
            torch.from_numpy(layer.weight).to(exact),
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        ).numpy()
    return sums.reshape(steps, samples, -1).astype(np.int32, copy=False)


def _exact(weight: np.ndarray) -> torch.dtype:
    """The float type in which no partial sum of the weights can be rounded."""
    return torch.float32 if 256 * weight[0].size < 2**24 else torch.float64


def _readout(layer: Layer, sums: np.ndarray) -> np.ndarray:
    logits = sums.mean(0)
    bias = getattr(layer, "bias", None)
    if bias is not None:
        logits = logits + np.repeat(bias, layer.neurons // len(bias))
    return logits / 64
