"""Has the C library keep freed memory, so that a training on a CPU need not fetch it anew."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the parameters of mallopt, by malloc.h
_CHOSEN_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@functools.cache
def keep_memory() -> bool:
    """Has glibc keep what is freed in this process, from now on; whether it does.

    By default glibc maps a block of 32 MiB or more afresh and gives it back when it is freed:
    the kernel clears every page anew, which can take longer than the arithmetic on it. An
    allocator that caches, as torch's for CUDA does, never pays that. The process then holds its
    peak of memory until it ends. Does nothing with another C library, or where the environment
    sets glibc's thresholds itself.

    `fit` calls it where it trains on a CPU; in a loop of one's own, call it once at the start.

    >>> keep_memory() in (True, False)
    True
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
