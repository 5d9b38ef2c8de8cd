"""Where torch's generators stand: noted, set back to, and kept."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def random_state(device: torch.device | None = None) -> dict[str, Any]:
    """The state of the CPU's generator and of a CUDA device's, under "cpu" and "cuda".

    device: whose; None for the current one. "cuda" is None for a CPU, and where CUDA is not used.

    >>> state = random_state()
    >>> first = torch.rand(3)
    >>> set_random_state(state); torch.equal(torch.rand(3), first)
    True
    """
    on_cuda = torch.cuda.is_initialized() and (device is None or device.type == "cuda")
    cuda = torch.cuda.get_rng_state(device or "cuda") if on_cuda else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Sets the generators to what `random_state` gave for that device."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"], device or "cuda")


def random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """Whatever is drawn within it, generators stand where they did behind it.

    >>> with random_state_kept(torch.device("cpu")):
    ...     first = torch.rand(3)
    >>> torch.equal(torch.rand(3), first)
    True
    """
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
