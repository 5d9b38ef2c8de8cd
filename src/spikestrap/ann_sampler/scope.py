"""Whether one curve can stand for a layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .idle import CHANNELS


def scope(
    parameters: Iterable[Tensor], channels: int | None = None, maps: bool = False
) -> dict[str, Any]:
    """Settings `per` and `channels` of an `AnnSampler` for neurons with these parameters.

    Where one differs between channels, so do their curves. And those of feature maps (`maps`):
    a channel is sampled at many places, and how its inputs are spread over the time steps, which
    a mean does not tell, is much alike there. With more than 4096 channels, whose statistics
    would be large, one curve stands for all. channels: their number, if known; else that of the
    parameters, each a number or a tensor (C,) or (C, 1, ...).

    >>> import torch
    >>> scope([torch.tensor(1.0), torch.tensor([0.5, 0.9])])
    {'per': 'channel', 'channels': 2}
    >>> scope([torch.tensor([0.5, 0.5])])
    {'per': 'layer', 'channels': 2}
    >>> scope([torch.tensor(1.0)], channels=8, maps=True)
    {'per': 'channel', 'channels': 8}
    >>> scope([torch.tensor(1.0)])
    {'per': 'layer', 'channels': None}
    """
    many = [p.detach() for p in parameters if p.numel() > 1]
    if channels is None and many:
        channels = next(size for size in many[0].shape if size > 1)
    differ = any(bool((p != p.flatten()[0]).any()) for p in many)
    fits = channels is not None and 1 < channels <= CHANNELS
    return {"per": "channel" if (differ or maps) and fits else "layer", "channels": channels}
