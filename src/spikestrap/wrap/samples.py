"""What a unit's curve is sampled from, taken in step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SpikestrapError


class Samples:
    """Sums over time of a unit's inputs and spikes.

    They take the memory of one step, however many there are, and what the model goes on to
    change in place does not reach them.
    """

    def __init__(self) -> None:
        self._inputs: Tensor | float = 0.0
        self._spikes: Tensor | float = 0.0
        # Tensors till the end: to ask for their values, an accelerator would wait at every step.
        self._binary: Tensor | bool = True
        self._range: tuple[Tensor, ...] = ()

    def add(self, z: Tensor, spikes: Tensor) -> None:
        """Takes in one call: z and spikes (t, N, ...)."""
        z, spikes = z.detach(), spikes.detach()
        self._inputs += _total(z)
        self._spikes += _total(spikes)
        self._binary &= (spikes == spikes.bool()).all()
        self._range = torch.stack((*self._range, *spikes.aminmax())).aminmax()

    def means(self, steps: int) -> tuple[Tensor, Tensor]:
        """Rates and mean inputs (N, ...) over so many steps."""
        if not bool(self._binary):
            least, most = (end.item() for end in self._range)
            raise SpikestrapError(
                f"expected spikes of 0 and 1, got values from {least:g} to {most:g}"
            )
        return torch.as_tensor(self._spikes) / steps, torch.as_tensor(self._inputs) / steps


def _total(x: Tensor) -> Tensor:
    """Sum over time; not in half precision, where counts end at 256."""
    return x.sum(0, dtype=torch.promote_types(x.dtype, torch.float32))
