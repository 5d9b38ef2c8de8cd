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
MOST = 2**29  # bytes to hold at most, in use or not
_PAGE = 2**21
_DTYPES = {torch.float32: np.float32, torch.uint8: np.uint8}


def room_for(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of that shape on the CPU, not written yet; dtype: float32 or uint8.

    A large one cannot be resized to more than it has, as those that come from numpy.

    >>> first = room_for((2, 2**20))
    >>> place = first.data_ptr()
    >>> del first
    >>> room_for((2**20, 2)).data_ptr() == place
    True
    """
    size = dtype.itemsize * math.prod(shape)
    if size >= LEAST:
        try:
            return torch.from_numpy(_array(shape, dtype, -(-size // _PAGE) * _PAGE))
        except MemoryError:
            _store.give_up()  # and torch tries, or says so
    return torch.empty(shape, dtype=dtype, device="cpu")


def _array(shape: Sequence[int], dtype: torch.dtype, size: int) -> np.ndarray:
    """The same of so many bytes, whole large pages."""
    block = _store.take(size)
    array = np.ndarray(shape, _DTYPES[dtype], _new(size) if block is None else block)
    if block is not None:
        # A tensor holds its array for as long as anything holds the tensor's storage.
        weakref.finalize(array, _store.freed.append, block).atexit = False
    return array


class _Store:
    """Blocks by their size.

    Blocks come back, and cease to be, from any thread and at any moment, in the middle of what
    is below as well: to append to a deque is all that is safe then.
    """

    def __init__(self) -> None:
        self.freed: deque[np.ndarray] = deque()
        self._gone: deque[int] = deque()  # sizes of blocks that are no more
        self._held = 0  # bytes of all blocks, those gone not yet taken off
        self._unused: list[np.ndarray] = []  # the one that was used last is the last
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of all blocks, in use and not."""
        while self._gone:
            self._held -= self._gone.popleft()
        return self._held

    def take(self, size: int) -> np.ndarray | None:
        """A block; None where all would be more than `MOST`, or somebody else is here."""
        # Not to be waited for: it may be what a signal has interrupted in this very thread.
        if not self._lock.acquire(blocking=False):
            return None
        try:
            while self.freed:
                self._unused.append(self.freed.popleft())
            for number in reversed(range(len(self._unused))):
                if self._unused[number].nbytes == size:
                    return self._unused.pop(number)
            in_use = self.held - sum(block.nbytes for block in self._unused)
            if in_use + size > MOST:
                return None
            while self._unused and self.held + size > MOST:
                del self._unused[0]
            block = _new(size)
            weakref.finalize(block, self._gone.append, size).atexit = False
            self._held += size
            return block
        finally:
            self._lock.release()

    def give_up(self) -> None:
        """Gives all that is not in use back to the system."""
        if self._lock.acquire(blocking=False):
            self.freed.clear()
            self._unused.clear()
            self._lock.release()


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
