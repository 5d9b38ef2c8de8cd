"""A model whose learnt parameters are others for a while, as training will make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Apart enough for a weight per time step to show, and none changes its sign or leaves (0, 1).
_LEAST = 0.5


@contextmanager
def perturbed(model: nn.Module) -> Iterator[None]:
    """Each element of what is learnt times a factor of its own, from 1/2 to 1; then as before.

    What starts the same everywhere, such as ones, is no longer the same. The parameters stay the
    same objects, and a graph that is there already can still go backward through them.

    >>> model = nn.Linear(3, 1)
    >>> weight = model.weight.detach().clone()
    >>> with perturbed(model):
    ...     torch.equal(model.weight, weight)
    False
    >>> torch.equal(model.weight, weight)
    True
    """
    # Other kinds of parameters, such as those that are spread over processes, are left alone.
    learnt = [p for p in model.parameters() if type(p) is nn.Parameter and p.requires_grad]
    before = [p.data for p in learnt]
    generator = torch.Generator().manual_seed(0)
    try:
        for parameter, data in zip(learnt, before, strict=True):
            factors = torch.rand(data.shape, generator=generator) * (1 - _LEAST) + _LEAST
            parameter.data = data * factors.to(data)
        yield
    finally:
        for parameter, data in zip(learnt, before, strict=True):
            parameter.data = data
