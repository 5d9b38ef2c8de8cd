"""What stays in float32 when the module around it is cast to half precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def full() -> torch.dtype:
    """torch's default precision, or float32 where that is half.

    >>> full()
    torch.float32
    """
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def whole(x: Tensor) -> Tensor:
    """The tensor in float32 where it is in half precision.

    >>> whole(torch.ones(2).half()).dtype, whole(torch.ones(2).double()).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in HALVES else x


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Autocast off within it; nothing to do where it is not on, as in most calls.

    >>> with torch.autocast("cpu"), without_autocast("cpu"):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def unhalved(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `nn.Module._apply` maps tensors by, but for a cast to half precision; moves remain.

    For modules of few parameters whose arithmetic is float32 all the same: halves would save no
    memory, and lose the small steps in which statistics move and decays are trained.

    >>> unhalved(torch.Tensor.bfloat16)(torch.ones(2)).dtype
    torch.float32
    >>> unhalved(torch.Tensor.double)(torch.ones(2)).dtype
    torch.float64
    """

    def mapped(tensor: Tensor) -> Tensor:
        new = fn(tensor)
        if new.dtype in HALVES and new.dtype != tensor.dtype:
            return tensor.to(new.device)
        return new

    return mapped
