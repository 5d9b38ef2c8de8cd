"""What a sampler saw of its layer, as sums of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .. import processes
from .histogram import ROWS, add_pairs, num_bins
from .idle import CHANNELS, add_activity


class Statistics:
    """Sums over pairs (mean input, rate), in bins, and over what each channel did.

    pairs: (channels, 4, bins) in float64, one table for each curve; see `histogram`.
    changes: (2, CHANNELS), the pairs above 0 and those below 1 of each channel; see `idle`.
    channels: of how many curves. fine: 2**fine bins an octave.

    Those of two sets of samples add up to those of both together, and so do those of processes.

    >>> z = torch.linspace(-1, 1, 20).view(2, 10); a = (z > 0).float()
    >>> whole, part = Statistics(1, 5), Statistics(1, 5)
    >>> whole.add(z, a); part.add(z[:1], a[:1]); part.add(z[1:], a[1:])
    >>> bool(torch.allclose(part.pairs, whole.pairs)), whole.total
    (True, 20)
    """

    def __init__(self, channels: int, fine: int) -> None:
        self.fine = fine
        self.pairs = torch.zeros(channels, len(ROWS), num_bins(fine), dtype=torch.float64)
        self.changes = torch.zeros(2, CHANNELS, dtype=torch.float32)

    @property
    def total(self) -> int:
        """How many pairs; what has faded counts as its share."""
        return round(self.pairs[:, 0].sum().item())

    def add(self, mean: Tensor, rate: Tensor) -> None:
        """Adds the pairs (mean, rate), each (N, C, ...), on their device."""
        self.replace(lambda sums: sums.to(mean.device))  # not every mover moves what is no buffer
        add_pairs(self.pairs, mean, rate, self.fine)
        add_activity(self.changes, rate)

    def merge(self, other: Statistics) -> None:
        """Adds those of the same form, from whatever device."""
        self.pairs += other.pairs.to(self.pairs.device)
        self.changes += other.changes.to(self.changes.device)

    def fade(self, share: float) -> None:
        """Keeps that share of everything."""
        self.pairs *= share
        self.changes *= share

    def clear(self) -> None:
        """Forgets everything."""
        self.pairs.zero_()
        self.changes.zero_()

    def add_up(self, device: torch.device) -> None:
        """Adds up those of all processes, the same to the bit in each; all must call."""
        self.replace(lambda sums: processes.add_up(sums.to(device)))

    def replace(self, by: Callable[[Tensor], Tensor]) -> None:
        """Puts in the place of each tensor what is made of it, as one on another device."""
        self.pairs, self.changes = by(self.pairs), by(self.changes)

    def state(self) -> dict[str, Tensor]:
        """The tensors by their names in a state dict, for `load`."""
        return {"statistics": self.pairs, "changes": self.changes}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes copies of `state`'s tensors: they are added to in place."""
        self.pairs = state["statistics"].to(self.pairs, copy=True)
        self.changes = state["changes"].to(self.changes, copy=True)
