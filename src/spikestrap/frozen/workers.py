"""Threads that each run a part of the batch through the whole network.

Each keeps its part in its own cache and waits for nobody between two layers. The calling thread
is one of them. While they run, torch uses one thread in each; elsewhere it keeps what it is set to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import Empty, SimpleQueue
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def each(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """[work(part) for part in parts], on as many threads as torch is set to.

    >>> each(abs, [-1, -2, -3])
    [1, 2, 3]
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        return [work(part) for part in parts]
    results: dict[int, Result] = {}
    left: SimpleQueue[int] = SimpleQueue()
    for number in range(len(parts)):
        left.put(number)

    def take() -> None:
        while True:
            try:
                number = left.get_nowait()
            except Empty:
                return
            results[number] = work(parts[number])

    others = [_pool(threads).submit(take) for _ in range(threads - 1)]
    torch.set_num_threads(1)
    try:
        take()
    finally:
        torch.set_num_threads(threads)
        for other in others:
            other.result()
    return [results[number] for number in range(len(parts))]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """All but the calling one."""
    pool = ThreadPoolExecutor(threads - 1, "spikestrap-frozen")
    together = Barrier(threads - 1)

    def use_one_thread() -> None:
        torch.get_num_threads()  # or the first to ask would set it anew
        torch.set_num_threads(1)  # of this thread, and the default of threads to come
        together.wait()

    for started in [pool.submit(use_one_thread) for _ in range(threads - 1)]:
        started.result()
    torch.set_num_threads(threads)
    return pool


# A forked process has the pools without their threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
