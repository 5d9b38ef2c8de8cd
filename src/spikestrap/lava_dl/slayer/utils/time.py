"""lava.lib.dl.slayer.utils.time: values over time, and spikes moved in time; time last."""

from __future__ import annotations

import torch
from torch import Tensor

from ....counts import whole_number
from ....errors import SpikestrapError

__all__ = ["replicate", "shift"]


def replicate(input: Tensor, num_steps: int) -> Tensor:
    """Holds x (N, ...) for num_steps: a view (N, ..., num_steps), no copy.

    >>> replicate(torch.rand(2, 3), 4).shape
    torch.Size([2, 3, 4])
    """
    num_steps = whole_number("replicate: num_steps", num_steps, 1)
    return input.unsqueeze(-1).expand(*input.shape, num_steps)


def shift(input: Tensor, shift_val: float | Tensor, sampling_time: float = 1) -> Tensor:
    """x (N, ..., T) later by shift_val / sampling_time steps, cut toward zero; zeros come in.

    shift_val: a number, or a tensor with one for each neuron; negative is earlier.

    >>> shift(torch.tensor([[1.0, 2.0, 3.0]]), 1).tolist()
    [[0.0, 1.0, 2.0]]
    """
    steps = (torch.as_tensor(shift_val, device=input.device) / sampling_time).trunc().long()
    neurons = input.shape[1:-1]
    if steps.numel() > 1 and steps.numel() != neurons.numel():
        raise SpikestrapError(
            f"shift: expected one number or {neurons.numel()}, one a neuron, got {steps.numel()}"
        )
    steps = steps.reshape(neurons if steps.numel() > 1 else ()).unsqueeze(-1)
    source = torch.arange(input.shape[-1], device=input.device) - steps
    inside = (source >= 0) & (source < input.shape[-1])
    index = source.clamp(0, input.shape[-1] - 1).expand_as(input)
    return input.gather(-1, index) * inside.to(input.dtype)
