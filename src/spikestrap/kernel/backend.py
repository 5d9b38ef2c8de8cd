"""Which backend neurons run on: the choice, and a way to force it."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from ..choices import check_choice
from ..errors import SpikestrapError, warn
from . import compiled, cuda
from .memory import in_memory, transformed

BACKENDS = ("auto", "reference", "fused")
_FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_backend = "auto"


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within it, neurons run on that backend: "reference", "fused" or "auto".

    "fused" raises where no fused kernel can be had; "auto" falls back to the reference.

    >>> import torch, spikestrap as ss
    >>> z = torch.rand(4, 2, 3)
    >>> lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.1)
    >>> with use_backend("reference"):
    ...     slow = lif(z)
    >>> torch.equal(slow, lif(z))
    True
    """
    check_choice("backend", name, BACKENDS)
    global _backend
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def fused_wanted(z: Tensor, neuron: str) -> bool:
    """Whether to look for a fused kernel for the input z, by the backend in force."""
    if forced_to_reference():
        return False
    device = z.device.type
    usable = device in ("cpu", "cuda") and z.dtype in _FUSED_DTYPES and not transformed()
    if usable and takes_triton(z) and not _HAS_TRITON:
        usable = False
        if _backend != "fused" and not torch.compiler.is_compiling():
            _say_that_triton_is_missing()
    if _backend == "fused" and not usable:
        raise SpikestrapError(
            f"{neuron}: no fused kernel for {z.dtype} on {device}; expected float32 or half "
            "precision on cpu, or on cuda where Triton is installed, and outside torch.func's "
            "transforms"
        )
    return usable


def forced_to_reference() -> bool:
    """Whether the backend in force is the plain reference."""
    return _backend == "reference"


def readable_by_kernels(x: Tensor) -> bool:
    """Whether loops on a CPU may read x from its memory: float32, and with no backend in force
    that wants none of them.
    """
    return (
        x.dtype is torch.float32
        and x.device.type == "cpu"
        and in_memory(x)
        and not forced_to_reference()
    )


def takes_triton(z: Tensor) -> bool:
    """Whether the kernels for z are Triton's. These read half precision as it is."""
    return z.device.type == "cuda"


def kernels_for(z: Tensor) -> ModuleType:
    """The module whose `run` runs a traced step on z."""
    return cuda if takes_triton(z) else compiled


@functools.cache
def _say_that_triton_is_missing() -> None:
    warn(
        "neurons on a GPU run step by step: their fused kernels need Triton, which is not "
        "installed (pip install triton)"
    )


def check_not_forced(neuron: str, reason: str) -> None:
    """Raises where a fused kernel must be taken, though the step has what stands against it."""
    if _backend == "fused":
        raise SpikestrapError(f"{neuron}: no fused kernel: its step has {reason}")
