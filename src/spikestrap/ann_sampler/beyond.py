"""What a neuron does at inputs beyond the sampled ones, where these tell nothing of its curve.

A layer that never spiked, or at every step, shows a constant. But the neuron is there and can be
asked: at constant inputs, as strong as it takes for its rate to change.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..random_state import random_state_kept

# Inputs (N, ...), each held for so many steps, to the neuron's rates (N, ...).
Respond = Callable[[Tensor, int], Tensor]

# So many inputs at least: enough to see every step of a staircase.
_INPUTS = 2048
_INPUTS_A_CHANNEL = 256
# Behind a silent layer inputs may be 0, which says nothing of what it takes.
_WEAKEST = 1e-3
_DOUBLINGS = 40
# What the rates of the weaker half have to span, so that the others show where that ends, ...
_ENOUGH = 0.75
# ... or no more of it at so many doublings in a row: some neurons never fire that often.
_NO_MORE = 3


def pairs_beyond(
    respond: Respond,
    time_steps: int,
    features: tuple[int, ...],
    largest: float,
    *,
    channels: int = 1,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Inputs (N, features...) on both sides of 0, and the neuron's rates, which span its range.

    largest: the magnitude of those that are known to change nothing; channels: of them, each with
    a curve of its own. None where no inputs change the rates, or the neuron cannot be asked. None
    of torch's random generators moves.

    >>> z, rates = pairs_beyond(lambda z, _: (z > 5).float(), 4, (3,), 0.1)
    >>> z.shape, 10 < z.max().item() < 20, rates.unique().tolist()
    (torch.Size([683, 3]), True, [0.0, 1.0])
    >>> pairs_beyond(lambda z, _: torch.zeros_like(z), 4, (3,), 0.1) is None
    True
    """
    pattern = _pattern(features, channels).to(device or "cpu")
    weaker = pattern.abs() <= 0.5
    strength, most, still = max(largest, _WEAKEST), 0.0, 0
    found: tuple[Tensor, Tensor] | None = None
    for _ in range(_DOUBLINGS):
        z = strength * pattern
        rates = _asked(respond, z, time_steps)
        if rates is None:
            return None
        span = (rates[weaker].max() - rates[weaker].min()).item()
        if span > most:
            most, still, found = span, 0, (z, rates)
        elif found:
            still += 1
        if span >= _ENOUGH or still == _NO_MORE:
            return found
        strength *= 2
    return None


def _pattern(features: tuple[int, ...], channels: int) -> Tensor:
    """Even from -1 to 1 in an order that is the same each time, (N, features...)."""
    batch = math.ceil(max(_INPUTS, _INPUTS_A_CHANNEL * channels) / math.prod(features))
    entries = batch * math.prod(features)
    # On the CPU and in single precision, whatever torch's defaults are.
    order = torch.randperm(entries, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    even = torch.linspace(-1, 1, entries, dtype=torch.float32, device="cpu")
    return even[order].view(batch, *features)


def _asked(respond: Respond, z: Tensor, time_steps: int) -> Tensor | None:
    """The rates, or None where what comes is none: the neuron may take no such inputs."""
    try:
        with random_state_kept(z.device):
            rates = respond(z, time_steps)
    except Exception:
        return None
    if not isinstance(rates, Tensor) or rates.shape != z.shape:
        return None
    rates = rates.float()
    return rates if bool(((rates >= 0) & (rates <= 1)).all()) else None
