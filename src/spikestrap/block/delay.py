"""Delay: spikes arrive some steps late, each neuron's by its own number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..counts import whole_number
from ..errors import SpikestrapError
from ..neuron.parameter import Bounds, Value, register, value_of
from ..routine import Mode
from ..timeaxis import has_time, without_padding


class Delay(nn.Module):
    r"""Axonal delay: y[t] = x[t - d], with a whole number d of steps for each channel.

    x: spikes (T, N, C) or (T, N, C, H, W), the same shape out; before the first step there
    was nothing, and what would arrive after the last one is lost.

    channels: C. max_delay: the longest delay. initial: the first delays, a number or (C,).
    learnable: whether to train them: the number behind each is real, kept in [0, max_delay],
    and rounded to run; its gradient is that of the central difference

    .. math:: \partial y / \partial d = (y_{d+1} - y_{d-1}) / 2

    with :math:`y_d` the output at delay d. rounding: to the "nearest" number of steps, or
    "down", with the one-sided difference :math:`y_{d+1} - y_d` as the gradient: so does
    lava-dl's slayer.axon.Delay, and delays trained there want it.

    In a network it may stand below the crossover, where it gets spikes in every mode. Rates
    (N, ...) have no time to shift, and how many spikes a delay pushes beyond the last step
    depends on T: they are refused, whatever the mode.

    >>> delay = Delay(2, max_delay=3, initial=torch.tensor([0.0, 2.0]), learnable=False)
    >>> x = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]).unsqueeze(1)     # (T, 1, 2)
    >>> delay(x).squeeze(1).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """

    delay: Tensor

    def __init__(
        self,
        channels: int,
        max_delay: int,
        *,
        initial: Value = 0.0,
        learnable: bool = True,
        rounding: str = "nearest",
    ) -> None:
        super().__init__()
        if rounding not in ("nearest", "down"):
            raise SpikestrapError(f"Delay: rounding must be nearest or down, got {rounding!r}")
        self.down = rounding == "down"
        self.channels = channels = whole_number("Delay: channels", channels, 1)
        self.bounds = Bounds(0.0, float(whole_number("Delay: max_delay", max_delay, 1)))
        first = torch.as_tensor(initial, dtype=torch.float32)
        if first.shape not in ((), (channels,)):
            raise SpikestrapError(
                f"Delay: initial must be a number or a tensor ({channels},), "
                f"got shape {tuple(first.shape)}"
            )
        register(self, "delay", first.expand(channels), self.bounds, learnable)

    @property
    def steps(self) -> Tensor:
        """The whole number of steps of each channel, int64 (C,)."""
        delay = value_of(self, "delay", self.bounds).detach()
        return (delay.floor() if self.down else delay.round()).long()

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """See above; `mode` is there to be called as other blocks are."""
        if not has_time(x) or x.shape[2] != self.channels:
            raise SpikestrapError(
                f"Delay: expected spikes (T, N, {self.channels}) or (T, N, {self.channels}, H, W), "
                f"got shape {tuple(x.shape)}; rates have no time to delay in: keep what stands "
                "before it SNN, below the crossover"
            )
        delay, steps = value_of(self, "delay", self.bounds), self.steps
        y = _shift(x, steps)
        if delay.requires_grad:
            heard = without_padding(x)  # a step less looks ahead
            low = 0 if self.down else -1
            slope = (_shift(heard, steps + 1) - _shift(heard, steps + low)).detach() / (1 - low)
            free = (delay - delay.detach()).to(x.dtype)  # nothing but a gradient
            y = y + slope * free.view(-1, *[1] * (x.ndim - 3))
        return y

    def extra_repr(self) -> str:
        return f"{self.channels}, max_delay={self.bounds.high:g}"


def _shift(x: Tensor, steps: Tensor) -> Tensor:
    """x (T, N, C, ...) so many steps (C,) later, or earlier where negative; zeros come in."""
    time = torch.arange(x.shape[0], device=x.device)
    source = (time[:, None] - steps).view(x.shape[0], 1, -1, *[1] * (x.ndim - 3))
    inside = (source >= 0) & (source < x.shape[0])
    y = x.gather(0, source.clamp(0, x.shape[0] - 1).expand_as(x))
    return y * inside.to(x.dtype)
