"""Synapses: linear maps of features, the same at every time step.

All take (T, N, ...) or (N, ...) and fold time into the batch. Weights have torch's shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm as normalize_weight

from .counts import finite_number, whole_number
from .errors import SpikestrapError
from .kernel import events
from .kernel.pooling import pool
from .timeaxis import has_time, over_time

Pair = tuple[int, int]
Size = int | Pair


class Synapse(nn.Module):
    """A torch layer on (N, features...), applied at every time step.

    layer: the torch module that holds the weight. feature_axes: 1 for (C,), 3 for (C, H, W).
    channels_in, channels_out: sizes of axis 1 of its input and output.

    >>> synapse = Synapse(nn.Linear(4, 2), 1, 4, 2)
    >>> synapse(torch.rand(5, 3, 4)).shape                      # (T, N, C)
    torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        layer: nn.Module,
        feature_axes: int,
        channels_in: int,
        channels_out: int,
        *,
        weight_scale: float = 1.0,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        weight_scale = finite_number("weight_scale", weight_scale)
        if weight_scale != 1.0:
            with torch.no_grad():
                layer.weight.mul_(weight_scale)  # type: ignore[operator]
        self.layer = normalize_weight(layer) if weight_norm else layer
        self.feature_axes = feature_axes
        self.channels_in, self.channels_out = channels_in, channels_out

    def forward(self, x: Tensor) -> Tensor:
        """x (T, N, features...) or (N, features...) to the weighted input z."""
        return self._over_time(self.layer, x)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same with another weight and bias, of the shapes of its own."""
        layer = self.layer
        if isinstance(layer, nn.Conv2d):
            size: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
            return self._over_time(lambda r: F.conv2d(r, weight, bias, *size), x)
        if isinstance(layer, nn.Linear):
            return self._over_time(lambda r: events.linear(r, weight, bias), x)
        raise SpikestrapError(f"expected a dense or convolutional synapse, got {layer}")

    def _over_time(self, layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        check_features(x, self.feature_axes, self.channels_in)
        if isinstance(self.layer, nn.Conv2d):
            _check_reach(x, self.layer)
        if has_time(x) and self.feature_axes > 1:
            return over_time(layer, x)
        return layer(x)

    @property
    def weight(self) -> Tensor:
        """The effective weight, weight norm applied."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias (C,), None if there is none."""
        bias = self.layer.bias
        assert bias is None or isinstance(bias, Tensor)
        return bias


class Linear(nn.Linear):
    """torch's, but for spikes over time (T, N, C), of which each adds a row of the weight."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) to (..., out)."""
        return events.linear(x, self.weight, self.bias)


def more_than_weights(layer: nn.Module) -> str | None:
    """What a layer does that its weight and bias do not say; None for a plain one.

    A parametrized layer is plain: its weight is the effective one whenever it is read.

    >>> more_than_weights(nn.Linear(4, 2)) is None
    True
    >>> more_than_weights(nn.Sequential(nn.Linear(4, 2)))
    'Sequential has a forward of its own'
    """
    name = type(layer).__name__
    if getattr(layer.forward, "__func__", None) not in _PLAIN:
        return f"{name} has a forward of its own"
    # Until the next call, what is there is of the last one.
    if not vars(layer).keys().isdisjoint(("weight", "bias")):
        return f"a hook sets the weight or bias of {name} at each call, as torch's pruning does"
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros":
            return f"{name} pads with {layer.padding_mode!r}, not with zeros"
        if getattr(layer._conv_forward, "__func__", None) is not nn.Conv2d._conv_forward:
            return f"{name} has a convolution of its own"
    return None


_PLAIN = (Linear.forward, nn.Linear.forward, nn.Conv2d.forward)


def zeros_around(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many zeros a convolution puts before and behind each axis of an image (H, W).

    >>> zeros_around(nn.Conv2d(1, 1, (2, 5), padding="same"))
    ((0, 2), (1, 2))
    """
    if not isinstance(layer.padding, str):
        return layer.padding, layer.padding
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    both = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    return tuple(size // 2 for size in both), tuple(size - size // 2 for size in both)


def linear(
    in_neurons: int, out_neurons: int, bias: bool, weight_scale: float, weight_norm: bool
) -> Synapse:
    """A fully connected synapse, (N, in_neurons) to (N, out_neurons)."""
    in_neurons = whole_number("in_neurons", in_neurons, 1)
    out_neurons = whole_number("out_neurons", out_neurons, 1)
    layer = Linear(in_neurons, out_neurons, bias)
    return Synapse(
        layer, 1, in_neurons, out_neurons, weight_scale=weight_scale, weight_norm=weight_norm
    )


def convolution(
    layer_type: type[nn.Conv2d] | type[nn.ConvTranspose2d],
    in_features: int,
    out_features: int,
    kernel_size: Size,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    *,
    bias: bool,
    weight_scale: float,
    weight_norm: bool,
) -> Synapse:
    """One of torch's convolutions, (N, in_features, H, W) to (N, out_features, H', W').

    padding: of nn.Conv2d also "valid" or "same".
    """
    in_features = whole_number("in_features", in_features, 1)
    out_features = whole_number("out_features", out_features, 1)
    groups = whole_number("groups", groups, 1)
    if in_features % groups or out_features % groups:
        raise SpikestrapError(
            f"groups must divide in_features = {in_features} and out_features = {out_features}, "
            f"got {groups}"
        )
    steps = _pair("stride", stride, 1)
    named = layer_type is nn.Conv2d and isinstance(padding, str) and padding in ("valid", "same")
    if named and padding == "same" and steps != (1, 1):
        raise SpikestrapError(f"padding='same' needs a stride of 1, got {stride!r}")
    layer = layer_type(
        in_features,
        out_features,
        _pair("kernel_size", kernel_size, 1),
        stride=steps,
        padding=padding if named else _pair("padding", padding, 0),  # type: ignore[arg-type]
        dilation=_pair("dilation", dilation, 1),
        groups=groups,
        bias=bias,
    )
    return Synapse(
        layer, 3, in_features, out_features, weight_scale=weight_scale, weight_norm=weight_norm
    )


class Pooling(nn.Module):
    """Sum or average of windows of (T, N, C, H, W) or (N, C, H, W), times a fixed weight.

    sizes: window, stride and padding, each (height, width). factor: what the sum of a window is
    multiplied by.
    """

    def __init__(
        self, kernel_size: Size, stride: Size | None, padding: Size, kind: str, weight: float
    ) -> None:
        super().__init__()
        if kind not in ("sum", "average"):
            raise SpikestrapError(
                f"kind must be sum or average, got {kind!r}: a maximum would not commute with "
                "averaging over time"
            )
        weight = finite_number("weight", weight)
        size, edge = _pair("kernel_size", kernel_size, 1), _pair("padding", padding, 0)
        if any(2 * pad > side for side, pad in zip(size, edge, strict=True)):
            raise SpikestrapError(
                f"padding must be at most half of the window {size}, got {padding!r}"
            )
        self.sizes = (size, size if stride is None else _pair("stride", stride, 1), edge)
        self.window = size[0] * size[1]
        self.factor = weight / (1 if kind == "sum" else self.window)
        # To divide by a power of two is as exact as the factor, and needs no second pass.
        mantissa, exponent = math.frexp(self.factor)
        self._divisor = 2 ** (1 - exponent) if mantissa == 0.5 and -30 < exponent < 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, H, W) to (..., C, H', W')."""
        return self.sums(x) * self.factor if self._divisor is None else self._over(self._divisor, x)

    def sums(self, x: Tensor) -> Tensor:
        """The same without the factor: the sum of each window."""
        # Not means: sums of spikes are whole numbers, exact in any order.
        return self._over(1, x)

    def _over(self, divisor: int, x: Tensor) -> Tensor:
        check_images(x)

        def run(images: Tensor) -> Tensor:
            return pool(images, *self.sizes, divisor)

        return over_time(run, x) if has_time(x) else run(x)

    def extra_repr(self) -> str:
        window, stride, padding = self.sizes
        return f"window={window}, stride={stride}, padding={padding}, factor={self.factor:g}"


class ElementWise(nn.Module):
    """weight * x + bias: what turns an input into a current. Both learnable numbers."""

    def __init__(self, weight: float, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(finite_number("weight", weight)))
        self.bias = nn.Parameter(torch.tensor(finite_number("bias", bias)))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, the same out."""
        return torch.addcmul(self.bias, x, self.weight)


def _pair(name: str, size: Any, low: int) -> Pair:
    """(height, width) of a number for both or of a pair, each at least `low`."""
    if hasattr(size, "tolist"):  # an array's
        size = size.tolist()
    if isinstance(size, Sequence) and not isinstance(size, str):
        if len(size) != 2:
            raise SpikestrapError(
                f"{name} must be a whole number or a pair (height, width), got {size!r}"
            )
        height, width = (whole_number(f"a side of {name}", side, low) for side in size)
        return height, width
    side = whole_number(name, size, low, kind="a pair, or a whole number")
    return side, side


def check_features(x: Tensor, axes: int, channels: int) -> None:
    """Raises unless x is (T, N, features...) or (N, features...), so many axes of features."""
    found = x.ndim - (2 if has_time(x) else 1)
    if found != axes or x.shape[-found] != channels:
        features = "C" if axes == 1 else "C, H, W"
        raise SpikestrapError(
            f"expected (T, N, {features}) or (N, {features}) with C = {channels}, "
            f"got shape {tuple(x.shape)}"
        )


def _check_reach(x: Tensor, layer: nn.Conv2d) -> None:
    """Raises unless the kernel lies within images (..., H, W) and their zeros around."""
    before, behind = zeros_around(layer)
    wide = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    sides = [sum(side) for side in zip(x.shape[-2:], before, behind, strict=True)]
    if any(side < span for side, span in zip(sides, wide, strict=True)):
        raise SpikestrapError(
            f"a kernel that spans {tuple(wide)} is larger than images {tuple(x.shape[-2:])} with "
            f"padding {layer.padding}"
        )


def check_images(x: Tensor) -> None:
    """Raises unless x is (T, N, C, H, W) or (N, C, H, W)."""
    if x.ndim not in (4, 5):
        raise SpikestrapError(
            f"expected images, (T, N, C, H, W) or (N, C, H, W), got shape {tuple(x.shape)}"
        )
