"""Whether one curve can stand for a layer, by the parameters of its neurons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .idle import CHANNELS


def scope(parameters: Iterable[Tensor], channels: int | None = None) -> dict[str, Any]:
    """Settings `per` and `channels` of an `AnnSampler` for neurons with these parameters.

    Where one differs between channels, so do their curves; with more than 4096 of them, whose
    statistics would be large, one stands for all. channels: their number, if known; else that
    of the parameters, each a number or a tensor (C,) or (C, 1, ...).

    >>> import torch
    >>> scope([torch.tensor(1.0), torch.tensor([0.5, 0.9])])
    {'per': 'channel', 'channels': 2}
    >>> scope([torch.tensor([0.5, 0.5])])
    {'per': 'layer', 'channels': 2}
    >>> scope([torch.tensor(1.0)])
    {'per': 'layer', 'channels': None}
    """
    many = [p.detach() for p in parameters if p.numel() > 1]
    if channels is None and many:
        channels = next(size for size in many[0].shape if size > 1)
    differ = any(bool((p != p.flatten()[0]).any()) for p in many)
    fits = channels is not None and channels <= CHANNELS
    return {"per": "channel" if differ and fits else "layer", "channels": channels}
