"""The sampler of a layer's transfer curve, time last."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import ann_sampler
from ..errors import SpikestrapError
from .timelast import time_first

_FIT_OF_ITS_OWN = (
    "has no counterpart: the fit chooses knots and range from the data; settings here are those "
    "of spikestrap.ann_sampler.AnnSampler (slope, rounding, ...)"
)


class AnnSampler(nn.Module):
    """`spikestrap.ann_sampler.AnnSampler` for spikes and inputs (N, ..., T), time last.

    settings: those of that class; or `sampler`, one that is there already.

    >>> import torch, spikestrap as ss
    >>> z = 3 * torch.rand(256, 10, 16, generator=torch.Generator().manual_seed(0)) - 1
    >>> lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.1)
    >>> sampler = AnnSampler()
    >>> sampler.append(lif(z.movedim(-1, 0)).movedim(0, -1), z)
    >>> sampler.fit()
    >>> rates = sampler(torch.tensor([-1.0, 0.5]))
    >>> bool(rates[0] == 0), bool(rates[1] > 0)
    (True, True)
    """

    def __init__(
        self,
        num_centers: None = None,
        sample_range: None = None,
        eps: None = None,
        *,
        sampler: ann_sampler.AnnSampler | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        names = {"num_centers": num_centers, "sample_range": sample_range, "eps": eps}
        for name, value in names.items():
            if value is not None:
                raise SpikestrapError(f"AnnSampler: {name} {_FIT_OF_ITS_OWN}")
        self.sampler = ann_sampler.AnnSampler(**settings) if sampler is None else sampler

    def append(self, a: Tensor, z: Tensor) -> None:
        """Records spikes a and their inputs z, both (N, C, T) or (N, C, H, W, T)."""
        self.sampler.append(time_first(a, "AnnSampler"), time_first(z, "AnnSampler"))

    def fit(self) -> None:
        """Fits the curve to what was sampled; bounded memory, so nothing is cleared by it."""
        self.sampler.fit()

    def clear(self) -> None:
        """Forgets what was sampled; the curve stays."""
        self.sampler.clear()

    def forward(self, z: Tensor) -> Tensor:
        """Rates for mean inputs z, any shape."""
        rates: Tensor = self.sampler(z)
        return rates

    def plot(self, figsize: tuple[float, float] | None = None) -> Any:
        """Draws samples and curve into a new figure; returns the matplotlib axes."""
        import matplotlib.pyplot as plt

        plt.figure(figsize=figsize)
        return self.sampler.plot()
