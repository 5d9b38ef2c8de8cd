"""Room for large results on a CPU: on large pages, and kept for the next when they are freed.

Memory that is new to a process is cleared by the system page by page when it is first written,
which can take longer than the kernel that writes it. torch's allocator for CPUs takes new memory
for every large tensor; that for CUDA keeps what is freed, and so does this.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LEAST = 2**22  # bytes of a result, from where on numpy has large pages
MOST = 2**29  # bytes to hold at most, in use or not; beyond it torch allocates
_PAGE = 2**21
_DTYPES = {torch.float32: np.float32, torch.uint8: np.uint8}


def room_for(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of that shape on the CPU, not written yet; dtype: float32 or uint8.

    >>> first = room_for((2, 2**20))
    >>> place = first.data_ptr()
    >>> del first
    >>> room_for((2**20, 2)).data_ptr() == place
    True
    """
    size = dtype.itemsize * math.prod(shape)
    memory = _store.take(-(-size // _PAGE) * _PAGE) if size >= LEAST else None
    if memory is None:
        return torch.empty(shape, dtype=dtype, device="cpu")
    array = np.ndarray(shape, _DTYPES[dtype], memory)
    # The tensor holds the array for as long as anything holds the tensor's storage.
    weakref.finalize(array, _store.freed.append, memory).atexit = False
    return torch.from_numpy(array)


class _Store:
    """Blocks of whole large pages, by their size."""

    def __init__(self) -> None:
        self.held = 0  # bytes of all blocks, in use and not
        # What comes back, from any thread and at any moment: to append is all that is safe then.
        self.freed: deque[np.ndarray] = deque()
        self._unused: list[np.ndarray] = []  # the one that was used last is the last
        self._lock = threading.Lock()

    def take(self, size: int) -> np.ndarray | None:
        """A block, or None where all would be more than `MOST`."""
        with self._lock:
            while self.freed:
                self._unused.append(self.freed.popleft())
            for number in reversed(range(len(self._unused))):
                if self._unused[number].nbytes == size:
                    return self._unused.pop(number)
            while self._unused and self.held + size > MOST:
                self.held -= self._unused.pop(0).nbytes
            if self.held + size > MOST:
                return None
            self.held += size
        return _new(size)


def _new(size: int) -> np.ndarray:
    """A block that starts at a large page, which numpy asks Linux for."""
    memory = np.empty(size + _PAGE, np.uint8)
    start = -memory.ctypes.data % _PAGE
    return memory[start : start + size]


_store = _Store()


def _start_anew() -> None:
    """In a forked child: another thread of its parent's may have held the lock."""
    global _store
    _store = _Store()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
