"""lava.lib.dl.slayer.loss: losses of spikes (N, ..., T), time last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...choices import check_choice
from ...counts import whole_number
from ...errors import SpikestrapError
from ..missing import missing
from ..timelast import floating, tensor
from .classifier import MovingWindow, Rate, by_class
from .utils.filter import FIR
from .utils.time import replicate

__all__ = ["SpikeMax", "SpikeMoid", "SpikeRate", "SpikeTime"]

__getattr__ = missing(
    __name__,
    {
        "SparsityEnforcer": "torch.relu(spikes.abs().mean() - max_rate).square() is its term of a "
        "layer; the rate is also what a block of count_log=True gives"
    },
)


class SpikeTime(nn.Module):
    """Squared distance of two spike trains after an exponential filter (van Rossum, 2001).

    time_constant, length: of the filter; filter_order: how many of them in a row.

    >>> import torch
    >>> spikes = torch.tensor([[[0.0, 1.0, 0.0]]])
    >>> loss = SpikeTime(time_constant=1, length=1)
    >>> loss(spikes, spikes).item(), loss(spikes, 0 * spikes).item()
    (0.0, 1.0)
    """

    def __init__(
        self,
        time_constant: float = 5,
        length: int = 100,
        filter_order: int = 1,
        reduction: str = "sum",
    ) -> None:
        super().__init__()
        single = FIR(time_constant=time_constant, length=length)
        response = single.filter
        for _ in range(whole_number("SpikeTime: filter_order", filter_order, 1) - 1):
            response = single(response)
        self.filter = FIR(response)
        check_choice("SpikeTime: reduction", reduction, _REDUCTIONS)
        self.reduction = reduction

    def forward(self, input: Tensor, desired: Tensor) -> Tensor:
        """input, desired: spikes (N, ..., T) of as many neurons: (N, C, 1, 1, T) fits (N, C, T)."""
        given, wanted = (_neurons(floating(spikes, "SpikeTime")) for spikes in (input, desired))
        if given != wanted:
            raise SpikestrapError(
                f"SpikeTime: expected spikes {tuple(input.shape)}, as the output's, got "
                f"{tuple(desired.shape)}"
            )
        desired = desired.reshape(input.shape)
        return F.mse_loss(self.filter(input), self.filter(desired), reduction=self.reduction)


class _OfRates(nn.Module):
    """A loss of the rates over the whole run, or with moving_window of the last so many steps."""

    def __init__(self, moving_window: int | None, reduction: str) -> None:
        super().__init__()
        self.window: Rate | MovingWindow = (
            Rate() if moving_window is None else MovingWindow(moving_window)
        )
        check_choice(f"{type(self).__name__}: reduction", reduction, _REDUCTIONS)
        self.reduction = reduction

    def _rates(self, spikes: Tensor) -> Tensor:
        """(N, C), or (N, C, T) of a moving window."""
        return self.window.rate(by_class(spikes, type(self).__name__))


class SpikeRate(_OfRates):
    """Squared distance of the rates from true_rate for the label and false_rate for the others.

    moving_window: compare at each step the rates of the last so many; labels (N,) or (N, T).

    >>> import torch
    >>> loss = SpikeRate(true_rate=0.5, false_rate=0.0)
    >>> loss(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.tensor([0])).item()
    0.0
    """

    def __init__(
        self,
        true_rate: float,
        false_rate: float,
        moving_window: int | None = None,
        reduction: str = "sum",
    ) -> None:
        super().__init__(moving_window, reduction)
        for name, rate in (("true_rate", true_rate), ("false_rate", false_rate)):
            if not 0 <= rate <= 1:
                raise SpikestrapError(f"SpikeRate: {name} must be in [0, 1], got {rate!r}")
        self.true_rate, self.false_rate = true_rate, false_rate

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        """input: spikes (N, C, T); label: classes."""
        rate = self._rates(input)
        hot = F.one_hot(_labels(label, rate, "SpikeRate"), rate.shape[1]).movedim(-1, 1)
        target = self.true_rate * hot + self.false_rate * (1 - hot)
        return F.mse_loss(rate, target.to(rate.dtype), reduction=self.reduction)


class SpikeMax(_OfRates):
    """Negative log of the confidence in the label.

    moving_window: at each step, of the last so many; labels (N,) or (N, T). mode:
    "probability", rates over their sum, or "softmax", also by the name "logsoftmax".

    >>> import torch
    >>> loss = SpikeMax(mode="softmax")
    >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([0])).item(), 4)      # log 2
    0.6931
    """

    def __init__(
        self, moving_window: int | None = None, mode: str = "probability", reduction: str = "sum"
    ) -> None:
        super().__init__(moving_window, reduction)
        if mode not in ("probability", "softmax", "logsoftmax"):
            raise SpikestrapError(
                f"SpikeMax: mode must be probability, softmax or logsoftmax, got {mode!r}"
            )
        self.mode = mode

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        """input: spikes (N, C, T); label: classes, of which -100 counts for nothing."""
        by_class(input, "SpikeMax")
        if self.mode != "probability":
            log_p = self.window.confidence(input, mode="logsoftmax")
        else:  # a class that never fired has confidence 0: its log must stay finite
            log_p = self.window.confidence(input, mode="probability").clamp_min(_SMALLEST).log()
        labels = _labels(label, log_p, "SpikeMax", ignored=_IGNORED)
        return F.nll_loss(log_p, labels, ignore_index=_IGNORED, reduction=self.reduction)


class SpikeMoid(_OfRates):
    """Binary cross-entropy of the sigmoid of (rate - theta) / alpha, class by class.

    label: 0 and 1, (N, C); with moving_window, at each step, also (N, C, T).

    >>> import torch
    >>> round(SpikeMoid()(torch.zeros(1, 1, 4), torch.ones(1, 1)).item(), 4)
    0.6931
    """

    def __init__(
        self,
        moving_window: int | None = None,
        reduction: str = "sum",
        alpha: float = 1,
        theta: float = 0,
    ) -> None:
        super().__init__(moving_window, reduction)
        self.alpha, self.theta = alpha, theta

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        """input: spikes (N, C, T)."""
        rate = self._rates(input)
        wanted = label = tensor(label, "SpikeMoid: label")
        if label.ndim < rate.ndim:
            label = replicate(label, input.shape[-1])
        elif label.ndim > rate.ndim:
            label = label.flatten(1, -1 if rate.ndim == 2 else -2)
        if label.shape != rate.shape:
            raise SpikestrapError(
                f"SpikeMoid: expected labels 0 and 1 for each class, {tuple(rate.shape)}, got "
                f"shape {tuple(wanted.shape)}; torch.nn.functional.one_hot makes them of classes"
            )
        return F.binary_cross_entropy_with_logits(
            (rate - self.theta) / self.alpha,
            label.to(rate.dtype),
            reduction=self.reduction,
        )


_SMALLEST = 1e-12
_IGNORED = -100  # torch's label of what has none
_REDUCTIONS = ("sum", "mean", "none")


def _neurons(spikes: Tensor) -> tuple[int, int, int]:
    """Sizes of spikes (N, ..., T): N, how many neurons, T."""
    return spikes.shape[0], spikes.shape[1:-1].numel(), spikes.shape[-1]


def _labels(label: Tensor, rate: Tensor, where: str, ignored: int | None = None) -> Tensor:
    """Classes (N,) for rates (N, C), (N, T) for (N, C, T), as int64.

    Raises SpikestrapError for other shapes, for what is no whole number, and for classes that
    rates have none of, but for `ignored`.
    """
    batch, classes, *steps = rate.shape
    label = tensor(label, f"{where}: label")
    if label.dtype is torch.bool or label.is_floating_point() or label.is_complex():
        raise SpikestrapError(
            f"{where}: expected labels in whole numbers, got {label.dtype}; use label.long()"
        )
    given, label = tuple(label.shape), label.long()
    if not steps and given == (batch, 1):
        label = label[:, 0]
    elif steps and given == (batch,):
        label = replicate(label, *steps)
    if label.shape != (batch, *steps):
        or_each = f", or {(batch, *steps)}, one a step" if steps else ""
        raise SpikestrapError(
            f"{where}: expected labels {(batch,)}, one for each of the batch{or_each}; got "
            f"shape {given}"
        )
    outside = (label < 0) | (label >= classes)
    if ignored is not None:
        outside &= label != ignored
    if bool(outside.any()):
        raise SpikestrapError(
            f"{where}: expected labels from 0 to {classes - 1}, as the output has {classes} "
            f"classes; got {int(label[outside][0])}"
        )
    return label
