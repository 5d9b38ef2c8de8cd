"""Neurons as NIR nodes, and back: the one place where the two sets of equations meet.

NIR's nodes are differential equations (Pedersen et al., Nature Communications 15, 2024):

    tau_syn dI/dt = -I + w_in S,    tau_mem dv/dt = (v_leak - v) + R I,    spike: v > v_threshold.

One forward Euler step of dt each, the membrane's with the new current, is

    I[t] = (1 - dt/tau_syn) I[t-1] + (w_in dt/tau_syn) S[t]
    v[t] = (1 - dt/tau_mem) v[t-1] + (R dt/tau_mem) I[t] + (dt/tau_mem) v_leak,

which is ours, u = I, for tau_syn = dt/current_decay, w_in = 1/current_decay,
tau_mem = dt/voltage_decay, R = 1/voltage_decay, v_leak = v_reset = 0. A decay of 0 would be an
infinite tau, so it takes the node without a leak: I for the current, IF for the membrane, R = 1/dt.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import nir
import numpy as np
import torch

from ...errors import SpikestrapError
from ...neuron import CUBA, IF, LIF, Firing, Neuron
from ...neuron.parameter import ANY, DECAY, THRESHOLD, Bounds, value_of

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]

NEURONS = {"CUBA": CUBA, "LIF": LIF, "IF": IF}
FIRING = (nir.IF, nir.LIF, nir.CubaLIF)
CURRENT = (nir.I, nir.LI)
EXTRAS = ("reset", "v_init")


def check_dt(dt: Any) -> float:
    """dt in seconds, or SpikestrapError."""
    if not isinstance(dt, Real) or not 0 < float(dt) < math.inf:
        raise SpikestrapError(f"NIR: dt must be a number of seconds > 0, got {short(dt)}")
    return float(dt)


def to_nodes(
    neuron: Neuron, shape: Shape, dt: float, allow: Collection[str] = ()
) -> list[nir.NIRNode]:
    """The nodes of a neuron on features of that shape: one that fires, maybe a current before it.

    allow: what may be written although NIR has no word for it, as metadata: "reset" and "v_init".

    >>> [type(node).__name__ for node in to_nodes(IF(threshold=1.0), (3,), 1e-4)]
    ['IF']
    >>> (node,) = to_nodes(LIF(threshold=1.0, voltage_decay=0.25), (3,), 1e-4)
    >>> float(node.tau[0]), float(node.r[0])
    (0.0004, 4.0)
    """
    if type(neuron) not in NEURONS.values():
        raise SpikestrapError(
            f"NIR has nodes for {', '.join(NEURONS)}; got the neuron {type(neuron).__name__}"
        )
    firing: Firing = neuron.firing  # type: ignore[assignment]
    v_init = _values(neuron, "v_init", ANY, 0.0)
    if firing.reset != "zero" and "reset" not in allow:
        raise SpikestrapError(
            f'NIR only knows the reset to v_reset; got reset={firing.reset!r}: allow=("reset",), '
            "on the command line --allow reset, writes it into the node's metadata, which other "
            "tools do not read"
        )
    if np.any(v_init != 0) and "v_init" not in allow:
        raise SpikestrapError(
            f"NIR has no first value of the membrane; got v_init={short(v_init)}: "
            'allow=("v_init",), on the command line --allow v_init, writes it into the metadata, '
            "which other tools do not read"
        )
    v_threshold = _full(_values(neuron, "threshold", THRESHOLD), shape)
    zero = np.zeros(shape)
    common = {
        "v_threshold": v_threshold,
        "v_reset": zero,
        "metadata": _metadata(neuron, firing, v_init),
    }
    current_decay = _full(_values(neuron, "current_decay", DECAY, 1.0), shape)
    voltage_decay = _full(_values(neuron, "voltage_decay", DECAY, 0.0), shape)
    leaks = _leaks(voltage_decay, "voltage_decay")
    membrane = (
        {"tau": dt / voltage_decay, "r": 1 / voltage_decay, "v_leak": zero} if leaks else None
    )
    if np.all(current_decay == 1):
        before = []
    elif not _leaks(current_decay, "current_decay"):
        before = [nir.I(r=np.full(shape, 1 / dt))]
    elif membrane is not None:
        return [
            nir.CubaLIF(
                tau_syn=dt / current_decay,
                w_in=1 / current_decay,
                tau_mem=membrane["tau"],
                r=membrane["r"],
                v_leak=zero,
                **common,
            )
        ]
    else:
        before = [nir.LI(tau=dt / current_decay, r=1 / current_decay, v_leak=zero)]
    if membrane is None:
        return [*before, nir.IF(r=np.full(shape, 1 / dt), **common)]
    return [*before, nir.LIF(**membrane, **common)]


def from_nodes(nodes: Sequence[nir.NIRNode], dt: float) -> Neuron:
    """The neuron of a firing node, or of an I or LI node with a firing node behind it.

    Any factor between S and v goes into the threshold, and a rest v_leak = v_reset is the new
    zero, so that every spike is as before. Raises SpikestrapError for what is no such neuron.

    >>> one, half = np.ones(3), np.full(3, 0.5)
    >>> node = nir.LIF(tau=4 * one, r=2 * one, v_leak=half, v_reset=half, v_threshold=one)
    >>> lif = from_nodes([node], dt=1.0)               # v - 1/2 gains 2/4 of the input a step
    >>> lif.voltage_decay.item(), lif.threshold.item()
    (0.25, 1.0)
    """
    *before, node = (copy.copy(node) for node in nodes)
    meta = node.metadata if isinstance(node.metadata, Mapping) else {}
    if isinstance(node, nir.CubaLIF):
        _check(node, ("tau_syn", "tau_mem", "r", "w_in", "v_leak", "v_reset", "v_threshold"))
        current_decay, gain = _decay(node.tau_syn, dt, "tau_syn"), node.w_in * dt / node.tau_syn
        voltage_decay, rest = _decay(node.tau_mem, dt, "tau_mem"), node.v_leak
        gain = gain * node.r * dt / node.tau_mem
    else:
        current_decay, gain = np.ones(()), np.ones(())
        if before:
            current_decay, gain = _current(before[0], dt)
        if isinstance(node, nir.LIF):
            _check(node, ("tau", "r", "v_leak", "v_reset", "v_threshold"))
            voltage_decay, rest = _decay(node.tau, dt, "tau"), node.v_leak
            gain = gain * node.r * dt / node.tau
        else:
            _check(node, ("r", "v_reset", "v_threshold"))
            voltage_decay, rest = np.zeros(()), node.v_reset
            gain = gain * node.r * dt
    if not np.array_equal(rest, node.v_reset):
        raise SpikestrapError(
            f"v_leak and v_reset must be equal, got {short(rest)} and {short(node.v_reset)}: "
            "a neuron here rests where it resets to"
        )
    if not np.all(gain > 0):
        raise SpikestrapError(f"the input's factor must be > 0, got {short(gain)} (r, w_in, tau)")
    rest = rest.astype(np.float64)
    threshold = (node.v_threshold - rest) / gain
    if not np.all(threshold > 0):
        raise SpikestrapError(f"v_threshold must lie above v_reset, got {short(threshold)} above")
    v_init = meta.get("v_init", 0.0)
    if np.any(np.asarray(v_init) != 0):
        v_init = (_full(_metadata_value(v_init), threshold.shape) - rest) / gain
    options = _options(meta)
    options["threshold"] = _by_channel(threshold, "threshold")
    options["v_init"] = _by_channel(np.asarray(v_init, np.float64), "v_init")
    if before or isinstance(node, nir.CubaLIF) or text(meta, "neuron") == "CUBA":
        return CUBA(
            current_decay=_by_channel(current_decay, "dt/tau_syn"),
            voltage_decay=_by_channel(voltage_decay, "dt/tau_mem"),
            **options,
        )
    if isinstance(node, nir.LIF) or text(meta, "neuron") == "LIF":
        return LIF(voltage_decay=_by_channel(voltage_decay, "dt/tau"), **options)
    return IF(**options)


def _values(neuron: Neuron, name: str, bounds: Bounds, default: float | None = None) -> Array:
    """A parameter () or (C,) as it acts, in float64."""
    if getattr(neuron, name, None) is None:
        return np.asarray(default, np.float64)
    return value_of(neuron, name, bounds).detach().cpu().double().numpy()


def _full(values: Array, shape: Shape) -> Array:
    """A parameter () or (C,) for every neuron: NIR keeps one value each."""
    if values.ndim == 1 and (not shape or shape[0] != values.size):
        raise SpikestrapError(f"{values.size} values, one a channel, for features of shape {shape}")
    aligned = values.reshape(-1, *[1] * (len(shape) - 1)) if values.ndim == 1 else values
    return np.array(np.broadcast_to(aligned, shape))


def _leaks(decay: Array, name: str) -> bool:
    if np.all(decay > 0):
        return True
    if np.any(decay > 0):
        raise SpikestrapError(
            f"{name} is 0 in some channels and not in others; one NIR node holds one kind only"
        )
    return False


def _metadata(neuron: Neuron, firing: Firing, v_init: Array) -> dict[str, Any]:
    settings = dataclasses.asdict(firing)
    settings["detach_reset"] = int(firing.detach_reset)
    if np.any(v_init != 0):
        settings["v_init"] = v_init if v_init.ndim else float(v_init)
    return {"neuron": type(neuron).__name__, "spike": "v > v_threshold", **settings}


def _options(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `Firing` in a node's metadata, of the right kind each."""
    options: dict[str, Any] = {}
    for field in dataclasses.fields(Firing):
        if field.name not in meta:
            continue
        value = meta[field.name]
        kind: Any = type(field.default)
        if kind is str and not isinstance(value, str):
            raise SpikestrapError(f"metadata {field.name} must be a text, got {short(value)}")
        try:
            options[field.name] = kind(value)
        except (TypeError, ValueError):
            raise SpikestrapError(
                f"metadata {field.name} must be a number, got {short(value)}"
            ) from None
    return options


def _metadata_value(value: Any) -> Array:
    try:
        values = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        values = np.full((), np.nan)
    if values.ndim > 1 or not np.all(np.isfinite(values)):
        raise SpikestrapError(
            f"metadata v_init must be a number or one a channel, got {short(value)}"
        )
    return values


def _current(node: nir.NIRNode, dt: float) -> tuple[Array, Array]:
    """Decay and factor of the current that an I or LI node makes of its input."""
    if isinstance(node, nir.I):
        _check(node, ("r",))
        return np.zeros(()), node.r * dt
    _check(node, ("tau", "r", "v_leak"))
    if np.any(node.v_leak != 0):
        raise SpikestrapError(f"v_leak of a current must be 0, got {short(node.v_leak)}")
    return _decay(node.tau, dt, "tau"), node.r * dt / node.tau


def _check(node: nir.NIRNode, names: Sequence[str]) -> None:
    """Finite numbers of one shape; an infinite tau is refused as well: that is an I or IF."""
    shape = np.shape(getattr(node, names[0]))
    for name in names:
        value = getattr(node, name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise SpikestrapError(f"{name} must be an array of numbers, got {short(value)}")
        if value.shape != shape or not value.size:
            raise SpikestrapError(f"{name} has shape {value.shape}, {names[0]} has {shape}")
        if not np.all(np.isfinite(value)):
            raise SpikestrapError(f"{name} must be finite, got {short(value[~np.isfinite(value)])}")
        setattr(node, name, value.astype(np.float64))


def _decay(tau: Array, dt: float, name: str) -> Array:
    if not np.all(tau > 0):
        raise SpikestrapError(f"{name} must be > 0, got {short(tau[~(tau > 0)])}")
    decay = dt / tau
    # A tau that is dt up to float32's rounding is one step's memory. One in full float64, as ours,
    # says what it means: its decay can be the float32 just below 1.
    with np.errstate(over="ignore"):
        rounded = (tau == tau.astype(np.float32)) | (decay > 1)
    decay = np.where(rounded & (np.abs(decay - 1) < 1e-6), 1.0, decay)
    if not np.all(decay <= 1):
        raise SpikestrapError(
            f"{name} = {tau[decay > 1].flat[0]:g} s is shorter than dt = {dt:g} s: pass the dt "
            "with which the file was made"
        )
    return decay


def _by_channel(values: Array, name: str) -> float | torch.Tensor:
    """One value for all, or (C,) where it only depends on the channel."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if values.size and np.all(values == values.flat[0]):
        return float(values.flat[0])
    first = values.reshape(values.shape[0], -1)[:, :1]
    if not np.all(values.reshape(values.shape[0], -1) == first):
        raise SpikestrapError(f"{name} differs within a channel; expected one value a channel")
    return torch.from_numpy(first[:, 0].copy())


def text(metadata: Mapping[str, Any], name: str) -> str | None:
    """An entry of a file's metadata if it is a text, which need not be so."""
    value = metadata.get(name)
    return value if isinstance(value, str) else None


def short(value: Any) -> str:
    """A value in an error message: its first entries only."""
    if isinstance(value, np.ndarray):
        some = value.flatten()[:3].tolist()
        return (
            f"{some[0]:g}"
            if value.size == 1
            else f"{some}"[:-1] + (", ...]" if value.size > 3 else "]")
        )
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:57]}..."
