"""Shares blocks of work out among threads, as many as numba is set to.

Generated kernels release the interpreter lock, so Python's threads serve; numba's own
parallel loops would double the time that a kernel takes to compile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numba


def share_out(work: Callable[[int, int], object], blocks: int) -> None:
    """Calls `work(first, end)` for ranges that make up range(blocks).

    >>> share_out(print, 3) if numba.get_num_threads() == 1 else print(0, 3)
    0 3
    """
    threads = min(numba.get_num_threads(), blocks)
    if threads <= 1:
        work(0, blocks)
        return
    cuts = [blocks * k // threads for k in range(threads + 1)]
    others = [_pool().submit(work, *cut) for cut in pairwise(cuts[1:])]
    work(cuts[0], cuts[1])
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, "spikestrap")


# A forked process has the pool without its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
