"""The batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import processes
from ..errors import SpikestrapError
from .augment import Augment
from .data import Arrays, to_input


class Batches:
    """Batches of images in a new random order at each pass, augmented.

    All batches are full: what is left over at the end of a pass is dropped (another rest each
    time), so that no batch is too small for batch statistics. Fewer images than ``batch_size``
    make one batch. Of several processes each gets its share of every batch; order and
    augmentation are what a single process would see.

    Args:
        arrays: the images, in memory.
        batch_size: images a batch, over all processes.
        augment: transform of the images, None for none and for frames of events.
        seed: of order and augmentation, which have a generator of their own.

    >>> arrays = Arrays(torch.rand(10, 1, 8, 8), torch.arange(10))
    >>> batches = Batches(arrays, batch_size=4, augment=None, seed=0)
    >>> len(batches), [tuple(x.shape) for x, y in batches]
    (2, [(4, 1, 8, 8), (4, 1, 8, 8)])
    """

    def __init__(self, arrays: Arrays, batch_size: int, augment: Augment | None, seed: int) -> None:
        self._arrays = arrays
        self.batch_size = min(batch_size, len(arrays))
        self._augment = augment
        self.generator = torch.Generator().manual_seed(seed)

    def to(self, device: torch.device) -> Batches:
        """The same batches, in the same order, on ``device``."""
        self._arrays = self._arrays.to(device)
        return self

    def __len__(self) -> int:
        return len(self._arrays) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = processes.count()
        if count > self.batch_size:
            raise SpikestrapError(
                f"batch_size: expected an image or more for each of the {count} processes, "
                f"got {self.batch_size}"
            )
        share = slice(processes.rank(), None, count)
        x, y = self._arrays.x, self._arrays.y
        order = torch.randperm(len(y), generator=self.generator).to(y.device)
        for whole in order.split(self.batch_size)[: len(self)]:
            indices = whole[share]
            images = x.index_select(0, indices)  # on a CPU much faster than x[indices]
            if self._augment is not None:
                draw = self._augment.draw((len(whole), *x.shape[1:]), self.generator)
                images = self._augment.apply(images, draw[share])
            yield to_input(images), y[indices]
