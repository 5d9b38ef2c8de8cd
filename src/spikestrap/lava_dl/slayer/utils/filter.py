"""lava.lib.dl.slayer.utils.filter: a causal filter over time, time last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....counts import finite_number, whole_number
from ....errors import SpikestrapError
from ...missing import missing
from ...timelast import floating

__all__ = ["FIR"]

__getattr__ = missing(
    __name__,
    {
        "FIRBank": "torch.nn.Conv1d over time has learnable filters",
        "conv": "FIR(fir_response) filters causally",
        "corr": "torch.nn.functional.conv1d is a correlation",
    },
)


class FIR(nn.Module):
    """Filters (N, ..., T) over time: y[t] = sampling_time * sum over k of h[k] x[t - k].

    fir_response: h; None for exp(-k / time_constant), k = 0 to length - 1.

    >>> FIR([1.0, 0.5])(torch.tensor([[1.0, 0.0, 0.0]])).tolist()
    [[1.0, 0.5, 0.0]]
    """

    filter: Tensor

    def __init__(
        self,
        fir_response: Tensor | Sequence[float] | None = None,
        time_constant: float = 1,
        length: int = 20,
        sampling_time: float = 1,
    ) -> None:
        super().__init__()
        if fir_response is None:
            length = whole_number("FIR: length", length, 1)
            if finite_number("FIR: time_constant", time_constant) == 0:
                raise SpikestrapError("FIR: time_constant must not be 0")
            response = torch.exp(-torch.arange(length) / time_constant)
        else:
            response = torch.as_tensor(fir_response, dtype=torch.float32)
        if response.ndim != 1 or not len(response):
            raise SpikestrapError(
                "FIR: expected a response of one axis, not empty, got shape "
                f"{tuple(response.shape)}"
            )
        self.register_buffer("filter", response)
        self.sampling_time = sampling_time

    def forward(self, input: Tensor) -> Tensor:
        """The same shape; what was before the first step counts as 0."""
        floating(input, "FIR")
        reach = len(self.filter) - 1
        series = F.pad(input.reshape(-1, 1, input.shape[-1]), (reach, 0))
        kernel = self.filter.to(input.dtype).flip(0).view(1, 1, -1)
        return F.conv1d(series, kernel).view(input.shape) * self.sampling_time
