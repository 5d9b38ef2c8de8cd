"""lava-dl's neuron parameters as a neuron dict of spikestrap's blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import SpikestrapError

SCALE = 64  # whole numbers on the chip over this: weights, thresholds
# tau_grad=1, scale_grad=1 of lava-dl's spiking neurons are these multiples of what the surrogate
# takes.
TAU_GRAD, SCALE_GRAD = 100.0, 0.1
_TRUNCATED = ("threshold", "threshold_step")
# What there is no counterpart of: the value that asks for nothing, and what to do instead.
WITHOUT = {
    "scale": (SCALE, "weights are whole 1/64, states whole 1/4096, as on the chip, or floats"),
    "shared_param": (True, "give spikestrap.neuron one value a channel, a tensor (C,)"),
    "persistent_state": (
        False,
        "states are passed on explicitly: spikes, state = neuron(z, state, return_state=True)",
    ),
    "graded_spike": (False, "spikes are 0 or 1"),
    "cum_error": (False, "what was not sent stays in the change as it is"),
    "num_neurons": (None, "the number of neurons is that of the input"),
}


class MeanOnlyBatchNorm:
    """Names `spikestrap.norm.MeanOnlyNorm` in a neuron dict: dict(norm=MeanOnlyBatchNorm, ...)."""

    def __init__(self) -> None:
        raise SpikestrapError(
            "MeanOnlyBatchNorm goes into a neuron dict as it is, not called; by itself the norm is "
            "spikestrap.norm.MeanOnlyNorm, time first"
        )


def translate(
    params: Mapping[str, Any] | None,
    learnable: Sequence[str],
    where: str,
    sends_changes: bool = False,
) -> dict[str, Any]:
    """The neuron dict for `spikestrap.block`; `params` is not changed.

    learnable: what lava-dl's requires_grad=True trains. sends_changes: of a sigma-delta neuron,
    whose tau_grad and scale_grad are those of a change. Keys of spikestrap's own (reset, v_init,
    sampler, ...) pass through. Raises SpikestrapError for what has no counterpart.

    >>> translate(dict(threshold=1.26, voltage_decay=0.03), ("voltage_decay",), "Dense")
    {'threshold': 1.25, 'voltage_decay': 0.03, 'tau_grad': 100.0, 'scale_grad': 0.1}
    """
    if not isinstance(params, Mapping):
        raise SpikestrapError(
            f"{where}: expected a dict of neuron parameters, got {type(params).__name__}"
        )
    made = dict(params)
    for key, (neutral, instead) in WITHOUT.items():
        if made.pop(key, neutral) != neutral:
            raise SpikestrapError(
                f"{where}: {key}={params[key]!r} is not carried over, only {neutral!r}: {instead}"
            )
    made.pop("log_init", None)  # how shared_param=False, refused above, spaces the periods
    for key in _TRUNCATED:
        if _is_number(made.get(key)):
            made[key] = int(made[key] * SCALE) / SCALE  # as lava-dl does, toward zero
            if key == "threshold" and made[key] == 0 < params[key]:
                raise SpikestrapError(
                    f"{where}: threshold={params[key]!r} is cut to whole 1/{SCALE}, and so to 0: "
                    f"expected 1/{SCALE} or more"
                )
    for key, factor in _gradient_factors(made, sends_changes).items():
        if _is_number(made.setdefault(key, 1)):
            made[key] *= factor
    if made.pop("requires_grad", False):
        made["learnable"] = tuple(learnable)
    if callable(activation := made.get("activation")):
        # torch.relu, or torch.nn.ReLU()
        named = getattr(activation, "__name__", None) or type(activation).__name__.lower()
        made["activation"] = named
    if made.get("norm") is not None:
        made["norm"] = _norm(made["norm"], where)
    if isinstance(made.get("dropout"), nn.Module):
        made["dropout"] = _probability(made["dropout"], where)
    return made


def _gradient_factors(made: Mapping[str, Any], sends_changes: bool) -> dict[str, float]:
    """What turns lava-dl's tau_grad and scale_grad into those of the surrogate."""
    if not sends_changes:
        return {"tau_grad": TAU_GRAD, "scale_grad": SCALE_GRAD}
    tau, threshold = made.get("tau_grad", 1), made.get("threshold", 0)
    if not (_is_number(tau) and _is_number(threshold) and threshold > 0):
        return {"tau_grad": 1.0, "scale_grad": 1.0}  # refused by name, or a tensor: no one width
    # Theirs is scale_grad / threshold * exp(-(|change| - threshold) / tau_grad); ours counts the
    # width in thresholds and takes the area, twice the height times the width.
    return {"tau_grad": 1 / threshold, "scale_grad": 2 * tau / threshold}


def _is_number(value: Any) -> bool:
    """What is none goes on as it is, to be refused by name."""
    return isinstance(value, int | float) and math.isfinite(value)


def _norm(norm: Any, where: str) -> str:
    if norm is MeanOnlyBatchNorm or norm == "mean_only":
        return "mean_only"
    raise SpikestrapError(
        f"{where}: norm must be None or slayer.neuron.norm.MeanOnlyBatchNorm, got {norm!r}; "
        'spikestrap.block has "batch", which folds into the weights at export'
    )


def _probability(dropout: nn.Module, where: str) -> float:
    p = getattr(dropout, "p", None)
    if not isinstance(p, float | int):
        raise SpikestrapError(
            f"{where}: dropout must be slayer.neuron.Dropout(p) or a probability, got {dropout!r}"
        )
    return float(p)
