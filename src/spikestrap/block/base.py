"""Blocks: synapse, norm, unit and dropout in one, called as `block(x, mode=m)`.

The classes here take any neuron, an instance of `Neuron`. `block.cuba`, `block.lif` and
`block.integrate_fire` hold the same classes bound to a neuron, which take a dict of its
parameters instead, as lava.lib.dl.slayer.block does.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..ann_sampler.sampler import sampler_of
from ..ann_sampler.scope import scope
from ..errors import SpikestrapError, at
from ..neuron import ChipCUBA, Neuron
from ..norm import make_norm
from ..precision import whole
from ..quantize import Quantizer
from ..routine import Mode
from ..synapse import ElementWise, Pooling, Size, Synapse, convolution, linear
from ..timeaxis import compact, has_time, time_mean, valid
from ..unit import Unit
from .delay import Delay
from .stateless import Dropout

NeuronLike = Neuron | Mapping[str, Any]
# Keys of a neuron dict that are the block's business, not the neuron's.
BLOCK_KEYS = ("norm", "dropout", "sampler")


class Block(nn.Module):
    """Synapse, norm, unit, dropout; what `Dense`, `Conv` and the others are made of.

    neuron: a Neuron, or a dict with its parameters and, besides, `norm` ("batch",
    "mean_only"), `dropout` (a probability), `sampler` (settings of `AnnSampler`; for a stochastic
    neuron rounding is off unless set; each channel of a convolution has a curve, as has each
    where a parameter differs between them, unless per="layer"); with a Neuron of your own,
    dict(neuron=MyNeuron(), norm="batch"). The dict is not changed.
    channels: size of axis 1 of the synapse's output (N, C, ...); None where the synapse does
    not know it. count_log: return (output, event rate), the rate being the mean number of
    spikes, or of changes sent, per neuron and step, as the neurons fired. delay_shift: send spikes
    on one step late, as between cores on a chip; the last step's are lost.
    """

    neuron_type: ClassVar[type[Neuron] | None] = None

    def __init__(
        self,
        neuron: NeuronLike,
        synapse: nn.Module,
        channels: int | None,
        *,
        count_log: bool = False,
        delay_shift: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        made, options = split_neuron(neuron, self.neuron_type, name)
        self.synapse = synapse
        if options["norm"] is not None and channels is None:
            raise SpikestrapError(
                f"{name}: norm={options['norm']!r} needs a number of channels, and {name} is told "
                "none: leave norm out of its dict, as {**neuron, 'norm': None} does"
            )
        self.norm = make_norm(options["norm"], channels or 0)
        maps = isinstance(synapse, Synapse) and synapse.feature_axes > 1
        curves = scope([*made.parameters(), *made.buffers()], channels, maps)
        sampler = sampler_of(options["sampler"], name, rounding=not made.stochastic, **curves)
        self.unit = Unit(made, sampler)
        self.dropout = Dropout(options["dropout"]) if options["dropout"] else None
        self.count_log = count_log
        self.delay: Delay | None = None
        self.delay_shift = delay_shift
        self.quantizer: Quantizer | None = None

    def quantize(self, bits: int = 8) -> Quantizer:
        """From here on computes on Loihi's grids, for good; parameters keep their names.

        Raises SpikestrapError for what the chip cannot do.
        """
        name = type(self).__name__
        neuron = self.unit.neuron
        neuron = neuron if isinstance(neuron, ChipCUBA) else ChipCUBA(neuron)
        if isinstance(self.synapse, Synapse) and isinstance(self.synapse.layer, nn.ConvTranspose2d):
            raise SpikestrapError(f"{name}: the chip's precision knows no transposed convolution")
        has_bias = self.norm is not None or getattr(self.synapse, "bias", None) is not None
        if has_bias and neuron.filters_current:
            raise SpikestrapError(
                f"{name}: on the chip a bias joins the membrane behind the current's decay, so "
                "with a bias, a norm or an Input block the current_decay must be 1 and fixed"
            )
        self.unit.neuron = neuron
        self.quantizer = Quantizer(bits)
        return self.quantizer

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes (T, N, ...) in SNN and SAMPLE mode, rates (N, ...) in ANN and FIT mode.

        x: (T, N, features...); in ANN and FIT mode also rates (N, features...). A layer in
        ANN mode that gets time averages it first: that is the crossover.
        """
        mode = Mode.of(mode)
        y = self._run(x, mode)
        event_rate = None
        if self.count_log:
            counted = valid(y.detach())
            # An event is one whatever value it carries.
            event_rate = (counted.ne(0) if mode.spiking else counted).float().mean()
        if self.delay is not None:
            y = self.delay(y, mode)
        if self.delay_shift and mode.spiking:
            y = torch.cat([torch.zeros_like(y[:1]), y[:-1]])
        if self.dropout is not None:
            y = self.dropout(y)
        return y if event_rate is None else (y, event_rate)

    def _run(self, x: Tensor, mode: Mode) -> Tensor:
        time_steps = x.shape[0] if has_time(x) else None
        if mode.spiking:
            if time_steps is None:
                raise SpikestrapError(
                    f"{type(self).__name__}: {mode} needs time, (T, N, features...) with "
                    f"features (C,) or (C, H, W); got shape {tuple(x.shape)}; "
                    "spikestrap.hold(x, time_steps) holds a static input"
                )
            x = compact(x)
        elif time_steps is not None:
            x, time_steps = time_mean(x), None
        if self.quantizer is not None:
            z = self.quantizer(self.synapse, self.norm, x)
        else:
            z = self.synapse(x) if self.norm is None else self.norm(self.synapse(x))
        y: Tensor = self.unit(z, mode, time_steps)
        # Neither complex numbers nor the chip's are calculated with in half precision.
        return y if self.quantizer is None and not z.is_complex() else y.to(x.dtype)


def split_neuron(
    neuron: NeuronLike, neuron_type: type[Neuron] | None, where: str
) -> tuple[Neuron, dict[str, Any]]:
    """The neuron, and the block's keys of its dict (None where they are missing)."""
    options: dict[str, Any] = dict.fromkeys(BLOCK_KEYS)
    if isinstance(neuron, Neuron):
        return neuron, options
    if isinstance(neuron, Mapping) and isinstance(neuron.get("neuron"), Neuron):
        made = neuron["neuron"]
        for key in neuron:
            if key not in ("neuron", *BLOCK_KEYS):
                raise SpikestrapError(
                    f"{where}: beside a Neuron, expected {', '.join(BLOCK_KEYS)}, got {key!r}"
                )
        return made, {**options, **{key: neuron[key] for key in BLOCK_KEYS if key in neuron}}
    if neuron_type is None or not isinstance(neuron, Mapping):
        wanted = "a Neuron" if neuron_type is None else "a dict of neuron parameters, or a Neuron"
        raise SpikestrapError(f"{where}: expected {wanted}, got {type(neuron).__name__}")
    known = [*inspect.signature(neuron_type).parameters, *BLOCK_KEYS]
    for key in neuron:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise SpikestrapError(
                f"{where}: unknown neuron parameter {key!r}{hint}; known: {', '.join(known)}"
            )
    options.update({key: neuron[key] for key in BLOCK_KEYS if key in neuron})
    own = {key: value for key, value in neuron.items() if key not in BLOCK_KEYS}
    try:
        return neuron_type(**own), options
    except TypeError as error:
        raise SpikestrapError(f"{where}: {neuron_type.__name__}: {error}") from None


class Input(Block):
    """Turns a value into a current, weight * x + bias (both learnable), and spikes.

    x: (T, N, C) or (T, N, C, H, W). It takes no `norm`, as it is not told C.

    >>> import spikestrap as ss
    >>> block = Input(ss.neuron.IF(threshold=1.0), weight=1.0, bias=0.0)
    >>> block(ss.hold(torch.rand(8, 784), 4), mode=ss.Mode.SNN).shape
    torch.Size([4, 8, 784])
    """

    def __init__(
        self, neuron: NeuronLike, weight: float = 1.0, bias: float = 0.0, **options: bool
    ) -> None:
        with at(type(self).__name__):
            synapse = ElementWise(weight, bias)
        super().__init__(neuron, synapse, None, **options)


class Dense(Block):
    """Fully connected: (T, N, in_neurons) to (T, N, out_neurons).

    bias: a constant current for each neuron. weight_scale multiplies torch's initial
    weights; weight_norm trains direction and length of each row apart.

    >>> import spikestrap as ss
    >>> block = Dense(ss.neuron.IF(threshold=1.0), 784, 10, weight_norm=True)
    >>> block(torch.rand(4, 8, 784), mode=ss.Mode.SNN).shape
    torch.Size([4, 8, 10])
    """

    def __init__(
        self,
        neuron: NeuronLike,
        in_neurons: int,
        out_neurons: int,
        *,
        bias: bool = False,
        weight_scale: float = 1.0,
        weight_norm: bool = False,
        count_log: bool = False,
        delay_shift: bool = False,
    ) -> None:
        with at(type(self).__name__):
            synapse = linear(in_neurons, out_neurons, bias, weight_scale, weight_norm)
        super().__init__(neuron, synapse, out_neurons, count_log=count_log, delay_shift=delay_shift)


class _Convolution(Block):
    """What `Conv` and `ConvT` share: all but the torch layer."""

    layer_type: ClassVar[type[nn.Conv2d] | type[nn.ConvTranspose2d]]

    def __init__(
        self,
        neuron: NeuronLike,
        in_features: int,
        out_features: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        *,
        bias: bool = False,
        weight_scale: float = 1.0,
        weight_norm: bool = False,
        count_log: bool = False,
        delay_shift: bool = False,
    ) -> None:
        with at(type(self).__name__):
            synapse = convolution(
                self.layer_type,
                in_features,
                out_features,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                bias=bias,
                weight_scale=weight_scale,
                weight_norm=weight_norm,
            )
        super().__init__(
            neuron, synapse, out_features, count_log=count_log, delay_shift=delay_shift
        )


class Conv(_Convolution):
    """2-d convolution: (T, N, in_features, H, W) to (T, N, out_features, H', W').

    kernel_size, stride, padding, dilation: a number, or a pair (height, width); padding also
    "valid" or "same".

    >>> import spikestrap as ss
    >>> block = Conv(ss.neuron.IF(threshold=1.0), 2, 8, 3, padding=1)
    >>> block(torch.rand(4, 5, 2, 12, 12), mode=ss.Mode.SNN).shape
    torch.Size([4, 5, 8, 12, 12])
    """

    layer_type = nn.Conv2d


class ConvT(_Convolution):
    """2-d transposed convolution: (T, N, in_features, H, W) to (T, N, out_features, H', W').

    >>> import spikestrap as ss
    >>> block = ConvT(ss.neuron.IF(threshold=1.0), 8, 2, 2, stride=2)
    >>> block(torch.rand(4, 5, 8, 6, 6), mode=ss.Mode.SNN).shape
    torch.Size([4, 5, 2, 12, 12])
    """

    layer_type = nn.ConvTranspose2d


class Pool(Block):
    """Pools with a neuron behind it: (T, N, C, H, W) to (T, N, C, H', W').

    kind: "sum" of a window, as in lava-dl, or its "average"; times the fixed `weight`.
    Maximum pooling does not commute with averaging over time, so there is none. It takes no
    `norm`, as it is not told C.

    >>> import spikestrap as ss
    >>> block = Pool(ss.neuron.IF(threshold=1.0), 2)
    >>> block(torch.rand(4, 5, 8, 6, 6), mode=ss.Mode.SNN).shape
    torch.Size([4, 5, 8, 3, 3])
    """

    def __init__(
        self,
        neuron: NeuronLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *,
        kind: str = "sum",
        weight: float = 1.0,
        **options: bool,
    ) -> None:
        with at(type(self).__name__):
            synapse = Pooling(kernel_size, stride, padding, kind, weight)
        super().__init__(neuron, synapse, None, **options)


class Affine(nn.Module):
    """The readout: (T, N, in_neurons) or rates (N, in_neurons) to logits (N, out_neurons).

    It has no neuron, so it reads the mean over time. `neuron` is there for the order of
    arguments, as in lava-dl; nothing of it is used, and None will do.

    >>> Affine(None, 512, 10)(torch.rand(4, 8, 512)).shape
    torch.Size([8, 10])
    """

    neuron_type: ClassVar[type[Neuron] | None] = None

    def __init__(
        self,
        neuron: NeuronLike | None,
        in_neurons: int,
        out_neurons: int,
        *,
        bias: bool = True,
        weight_scale: float = 1.0,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(neuron, Mapping):
            split_neuron(neuron, self.neuron_type, type(self).__name__)
        with at(type(self).__name__):
            self.synapse = linear(in_neurons, out_neurons, bias, weight_scale, weight_norm)
        self.quantizer: Quantizer | None = None

    def quantize(self, bits: int = 8) -> Quantizer:
        """From here on computes on Loihi's grids, for good; parameters keep their names."""
        self.quantizer = Quantizer(bits)
        return self.quantizer

    def forward(self, x: Tensor, mode: Mode = Mode.SNN) -> Tensor:
        """Logits (N, out_neurons), in every mode."""
        if self.quantizer is not None:
            exact = self.quantizer(self.synapse, None, _mean(whole(x)))
            return exact.to(next(self.synapse.parameters(), exact).dtype)
        logits: Tensor = self.synapse(_mean(x))
        return logits


def _mean(x: Tensor) -> Tensor:
    return time_mean(x) if has_time(x) else x
