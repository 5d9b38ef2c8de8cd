"""Sums and copies over the processes of a `torch.distributed` training; with one, nothing."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes train together; 1 without `torch.distributed`.

    >>> count(), rank()
    (1, 0)
    """
    return dist.get_world_size() if _active() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _active() else 0


def is_first() -> bool:
    """Whether this is the process that writes and prints; known before they are connected, too."""
    if _active():
        return dist.get_rank() == 0
    # What torchrun and Lightning tell the processes that they start.
    return not any(int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all processes, the same to the bit in each; in place, all must call.

    >>> import torch
    >>> add_up(torch.ones(2))
    tensor([1., 1.])
    """
    if count() > 1:
        dist.all_reduce(tensor)
        # A reduction need not add in one order on every process; what rank 0 got is what counts.
        dist.broadcast(tensor, 0)
    return tensor


class _SumOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return add_up(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Each process's part is in the sum of every one.
        return add_up(gradient.clone(memory_format=torch.contiguous_format))


def sum_of_all(tensor: Tensor) -> Tensor:
    """The sum over all processes, with its gradient; all must call, also its backward.

    >>> import torch
    >>> sum_of_all(torch.ones(2))
    tensor([1., 1.])
    """
    summed: Tensor = _SumOfAll.apply(tensor)
    return summed


def largest(tensor: Tensor) -> Tensor:
    """The elementwise maximum over all processes; in place, all must call."""
    if count() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def copy_of_first(tensor: Tensor) -> Tensor:
    """What rank 0 holds; in place, all must call."""
    if count() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()
