"""Blocks with a neuron: Input, Dense, Conv, Recurrent, Pool."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..block.complex import ComplexSynapse
from ..block.recurrent import SelfDriven
from ..errors import SpikestrapError
from ..routine import Mode
from ..synapse import ElementWise, Pooling, Size, Synapse
from ..timeaxis import hold, is_held
from .surface import EIGHT_BIT, Params, WithNeuron
from .weights import ComplexSynapseView, SynapseView, keep_only


class Input(WithNeuron):
    """Turns a value x into a current, weight * x + bias, and spikes: any shape, the same out.

    weight, bias: both learnable; with one alone the other starts at 1 or 0, None and None leave
    them out. The current is rounded to whole 1/64, as the chip's input layer does; with
    pre_hook_fx=None it is a float.

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> x = torch.rand(8, 784, 16)                                    # (N, C, T)
    >>> block.cuba.Input(neuron, weight=1, bias=0)(x, mode=Mode.SNN).shape
    torch.Size([8, 784, 16])
    """

    def __init__(
        self,
        neuron_params: Params = None,
        weight: float | None = None,
        bias: float | None = None,
        delay_shift: bool | None = None,
        count_log: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
    ) -> None:
        gain = 1.0 if weight is None else weight
        offset = 0.0 if bias is None else bias
        # `block.Input` is made for pixels in [0, 1], of which the chip's input layer takes
        # 2 x - 1. Here x is what that layer takes.
        neuron = self._neuron(neuron_params)
        made = self.family.blocks.Input(
            {key: neuron[key] for key in neuron if key not in self.family.encoder_ignores},
            2 * gain,
            offset - gain,
            **self._options(delay_shift, count_log),
        )
        made.synapse.requires_grad_(weight is not None or bias is not None)
        super().__init__(made, (), count_log)
        self._quantize(pre_hook_fx)

    def _run(self, x: Tensor, mode: Mode) -> Any:
        # 1.0, not 1: whole numbers become floats before 255 wraps.
        pixels = hold((x[0] + 1.0) / 2, len(x)) if is_held(x) else (x + 1.0) / 2
        return super()._run(pixels, mode)

    @property
    def weight(self) -> Tensor:
        """The factor of x."""
        return self._encoder.weight / 2

    @property
    def bias(self) -> Tensor:
        """What is added to it."""
        return self._encoder.bias + self._encoder.weight / 2

    @property
    def _encoder(self) -> ElementWise:
        synapse = self.block.synapse
        assert isinstance(synapse, ElementWise)
        return synapse


class WithSynapse(WithNeuron):
    """A block with weights to train."""

    @property
    def synapse(self) -> SynapseView | ComplexSynapseView:
        """Its weights."""
        synapse = self.block.synapse
        if isinstance(synapse, ComplexSynapse):
            return ComplexSynapseView(synapse)
        assert isinstance(synapse, Synapse)
        return SynapseView(synapse)


class Dense(WithSynapse):
    """Fully connected: (N, in_neurons, T) to (N, out_neurons, T); (N, C, 1, 1, T) stays such.

    weight_scale multiplies torch's initial weights. mask (out_neurons, in_neurons): which to keep.
    pre_hook_fx: left out for 8-bit weights, None for float ones. delay: spikes go on late by a
    learnable number of steps a neuron, at most 62; of slayer alone. delay_shift: spikes go on one
    step late. count_log: gives (output, event rate).

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> block.cuba.Dense(neuron, 784, 10)(torch.rand(8, 784, 16), mode=Mode.SNN).shape
    torch.Size([8, 10, 16])
    """

    def __init__(
        self,
        neuron_params: Params,
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
        delay: bool = False,
        delay_shift: bool | None = None,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        made = self.family.weighted("Dense")(
            self._neuron(neuron_params),
            in_neurons,
            out_neurons,
            weight_scale=float(weight_scale),
            weight_norm=weight_norm,
            **self._options(delay_shift, count_log),
        )
        keep_only(made.synapse, mask, type(self).__name__)
        super().__init__(made, (in_neurons,), count_log)
        self._add_delay(delay, out_neurons)
        self.features = (in_neurons,)
        self._quantize(pre_hook_fx)


class Conv(WithSynapse):
    """2-d convolution: (N, in_features, H, W, T) to (N, out_features, H', W', T).

    The options are those of `Dense`.

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> conv = block.cuba.Conv(neuron, 2, 4, kernel_size=3, padding=1)
    >>> conv(torch.rand(8, 2, 12, 12, 16), mode=Mode.SNN).shape
    torch.Size([8, 4, 12, 12, 16])
    """

    def __init__(
        self,
        neuron_params: Params,
        in_features: int,
        out_features: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        made = self.family.weighted("Conv")(
            self._neuron(neuron_params),
            in_features,
            out_features,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            weight_scale=float(weight_scale),
            weight_norm=weight_norm,
            **self._options(delay_shift, count_log),
        )
        super().__init__(made, (), count_log)
        self._add_delay(delay, out_features)
        self.features = (in_features, None, None)
        self._quantize(pre_hook_fx)


class Recurrent(WithNeuron):
    """Fully connected, and to itself: (N, in_neurons, T) to (N, out_neurons, T).

    Each neuron gets, besides what in_neurons send, what all out_neurons sent in the step before;
    delays and delay_shift are behind that. Every run starts from rest. requires_grad: whether the
    weights among out_neurons train. The other options are those of `Dense`; it takes no norm.

    >>> import torch
    >>> from spikestrap.lava_dl.slayer import block
    >>> neuron = dict(threshold=1.25, current_decay=0.25, voltage_decay=0.03)
    >>> block.cuba.Recurrent(neuron, 784, 10)(torch.rand(8, 784, 16)).shape
    torch.Size([8, 10, 16])
    """

    def __init__(
        self,
        neuron_params: Params,
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
        requires_grad: bool = True,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        neuron = self._neuron(neuron_params)
        if neuron.get("norm") is not None:
            raise SpikestrapError(
                f"{type(self).__name__}: norm is not carried over: lava-dl takes its mean anew at "
                "every step"
            )
        made = self.family.blocks.Recurrent(
            neuron,
            in_neurons,
            out_neurons,
            weight_scale=float(weight_scale),
            weight_norm=weight_norm,
            **self._options(delay_shift, count_log),
        )
        super().__init__(made, (in_neurons,), count_log)
        self._add_delay(delay, out_neurons)
        self.features = (in_neurons,)
        self._back.requires_grad_(requires_grad)
        self._quantize(pre_hook_fx)

    @property
    def input_synapse(self) -> SynapseView:
        """The weights from in_neurons."""
        assert isinstance(self.block.synapse, Synapse)
        return SynapseView(self.block.synapse)

    @property
    def recurrent_synapse(self) -> SynapseView:
        """The weights among out_neurons."""
        return SynapseView(self._back)

    @property
    def _back(self) -> Synapse:
        driven = self.block.unit.neuron
        assert isinstance(driven, SelfDriven)
        assert isinstance(driven.synapse, Synapse)
        return driven.synapse


class Pool(WithNeuron):
    """Sums windows, times weight_scale, into a neuron: (N, C, H, W, T) to (N, C, H', W', T).

    Windows must tile the image. A norm in neuron_params is left out, as there; the options are
    those of `Dense`.

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> block.cuba.Pool(neuron, 2)(torch.rand(8, 2, 12, 12, 16), mode=Mode.SNN).shape
    torch.Size([8, 2, 6, 6, 16])
    """

    features = (None, None, None)

    def __init__(
        self,
        neuron_params: Params,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        name = type(self).__name__
        if dilation not in (1, (1, 1)) or weight_norm:
            raise SpikestrapError(
                f"{name}: dilation and weight_norm are not carried over: its weight is one fixed "
                f"number; got {dilation=}, {weight_norm=}"
            )
        made = self.family.blocks.Pool(
            {**self._neuron(neuron_params), "norm": None},
            kernel_size,
            stride,
            padding,
            weight=float(weight_scale),
            **self._options(delay_shift, count_log),
        )
        super().__init__(made, (), count_log)
        self._add_delay(delay, None)
        self._quantize(pre_hook_fx)

    def _run(self, x: Tensor, mode: Mode) -> Any:
        assert isinstance(self.block.synapse, Pooling)
        window, step, edge = self.block.synapse.sizes
        sides = [s + 2 * e - w for s, e, w in zip(x.shape[3:], edge, window, strict=True)]
        if any(side < 0 or side % s for side, s in zip(sides, step, strict=True)):
            raise SpikestrapError(
                f"{type(self).__name__}: windows {window} at stride {step} do not tile images "
                f"{tuple(x.shape[3:])}; lava-dl adds zeros at one edge, which its export leaves "
                "out: pad the images, or crop them"
            )
        return super()._run(x, mode)
