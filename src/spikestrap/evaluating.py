"""Eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards each module is as it was.

    >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
    >>> with evaluating(model):
    ...     model[0].training
    False
    >>> model[0].training, model[1].training
    (True, False)
    """
    trainings = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(trainings[model])  # for those that do something at the change
        for module, training in trainings.items():
            module.training = training
