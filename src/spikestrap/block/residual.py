"""The basic block of a residual network, with spiking neurons."""

from __future__ import annotations

from torch import Tensor, nn

from ..norm import Norm
from ..routine import Mode
from ..synapse import Synapse
from ..timeaxis import compact, has_time, time_mean
from .base import Conv, NeuronLike


class Residual(nn.Module):
    """Two convolutions 3 x 3 and a shortcut around them: (T, N, C, H, W) to (T, N, C', H', W').

    The shortcut joins before the second neuron, where He et al. (CVPR 2016, figure 3) add it:
    its input is norm(conv(y)) + shortcut(x), y being the spikes of the first neuron. All but
    the two neurons is linear, so it commutes with averaging over time as any block does. The
    shortcut is x itself, or norm(conv 1 x 1) where the shape changes. As a block of a network it
    has one mode, for both of its units.

    neuron: a dict as `block.cuba.Conv` takes it, `norm` included, or what `block.Conv` takes;
    conv: that class. stride: of the first convolution and the shortcut.

    >>> import torch, spikestrap as ss
    >>> neuron = dict(threshold=1.0, reset="subtract", v_init=0.5, norm="batch")
    >>> block = Residual(ss.block.integrate_fire.Conv, neuron, 8, 16, stride=2)
    >>> block(torch.rand(4, 5, 8, 12, 12), mode=ss.Mode.SNN).shape
    torch.Size([4, 5, 16, 6, 6])
    """

    def __init__(
        self,
        conv: type[Conv],
        neuron: NeuronLike,
        in_features: int,
        out_features: int,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.first = conv(neuron, in_features, out_features, 3, stride, 1)
        self.second = conv(neuron, out_features, out_features, 3, 1, 1)
        self.shortcut = _Shortcut(self.second, in_features, out_features, stride)

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """Spikes (T, N, C', H', W') in SNN and SAMPLE mode, rates (N, C', H', W') in others.

        x: (T, N, C, H, W); in ANN and FIT mode also rates (N, C, H, W).
        """
        mode = Mode.of(mode)
        y = self.first(x, mode=mode)
        x = compact(x) if mode.spiking else time_mean(x) if has_time(x) else x
        second = self.second
        z = second.synapse(y) if second.norm is None else second.norm(second.synapse(y))
        y = second.unit(z + self.shortcut(x), mode)
        return y if second.dropout is None else second.dropout(y)


class _Shortcut(nn.Module):
    """Spikes or rates as they are, or through norm(conv 1 x 1) where `beside` changes the shape."""

    def __init__(self, beside: Conv, in_features: int, out_features: int, stride: int) -> None:
        super().__init__()
        self.synapse: Synapse | None = None
        self.norm: Norm | None = None
        if stride != 1 or in_features != out_features:
            layer = nn.Conv2d(in_features, out_features, 1, stride, bias=False)
            self.synapse = Synapse(layer, 3, in_features, out_features)
            self.norm = None if beside.norm is None else type(beside.norm)(out_features)

    def forward(self, x: Tensor) -> Tensor:
        if self.synapse is None:
            return x
        z: Tensor = self.synapse(x)
        return z if self.norm is None else self.norm(z)
