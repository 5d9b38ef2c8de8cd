"""The batches of an epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .augment import RandomAffine
from .data import Arrays


class Batches:
    """Batches of images in a new random order at each pass, augmented.

    All batches are full: what is left over at the end of a pass is dropped (another rest each
    time), so that no batch is too small for batch statistics. Fewer images than ``batch_size``
    make one batch.

    Args:
        arrays: the images, in memory.
        batch_size: images a batch.
        augment: transform of the images, None for none.
        seed: of order and augmentation, which have a generator of their own.

    >>> arrays = Arrays(torch.rand(10, 1, 8, 8), torch.arange(10))
    >>> batches = Batches(arrays, batch_size=4, augment=None, seed=0)
    >>> len(batches), [tuple(x.shape) for x, y in batches]
    (2, [(4, 1, 8, 8), (4, 1, 8, 8)])
    """

    def __init__(
        self, arrays: Arrays, batch_size: int, augment: RandomAffine | None, seed: int
    ) -> None:
        self._arrays = arrays
        self._batch_size = min(batch_size, len(arrays))
        self._augment = augment
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._arrays) // self._batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self._arrays.x, self._arrays.y
        order = torch.randperm(len(y), generator=self._generator).to(y.device)
        for indices in order.split(self._batch_size)[: len(self)]:
            images = x[indices]
            if self._augment is not None:
                images = self._augment(images, self._generator)
            yield images, y[indices]
