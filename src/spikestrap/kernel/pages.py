"""Room for large results by large pages, as numpy asks for its arrays.

Memory that is new to a process is cleared by the system page by page when it is first written. By
pages of 4 KiB that can take longer than the kernel that writes it; by those of 2 MiB, less.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable
from typing import Any

from torch import Tensor

_LEAST = 2**22  # bytes, as numpy has it


def by_large_pages(tensor: Tensor) -> Tensor:
    """The same tensor, on a CPU and not written yet; Linux is asked for large pages if it is large.

    >>> import torch
    >>> by_large_pages(torch.empty(2**20)).fill_(1.0).sum().item()
    1048576.0
    """
    size, advise = tensor.nbytes, _advise()
    if size >= _LEAST and advise is not None:
        start = tensor.data_ptr()
        whole = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        # If it refuses, pages are small.
        advise(whole, start + size - whole, mmap.MADV_HUGEPAGE)
    return tensor


@functools.cache
def _advise() -> Callable[..., Any] | None:
    """Linux's madvise; None elsewhere."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
