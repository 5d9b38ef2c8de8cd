"""lava-dl's blocks: the ones of spikestrap.block, called with time last.

`bind` makes the classes of one neuron, for `bootstrap` (which bootstraps, so ANN is the mode
unless told otherwise) or for `slayer` (which trains directly, with a delay of one step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from .. import block as blocks
from ..block.base import split_neuron
from ..errors import SpikestrapError
from ..neuron import ChipCUBA, Neuron
from ..routine import Mode
from ..synapse import ElementWise, Size, Synapse
from ..timeaxis import has_time, hold, is_held, over_time
from .checkpoint import rename_lava_dl
from .neuron_params import translate
from .sampler import AnnSampler
from .timelast import time_first, time_last

if TYPE_CHECKING:
    import h5py

Params = Mapping[str, Any] | None
EIGHT_BIT = "8-bit"  # lava-dl's default for pre_hook_fx is a function that does this


@dataclass(frozen=True)
class Family:
    """Blocks of one neuron: where spikestrap has them, what requires_grad trains.

    on_chip: the neuron has a form in the chip's integers, so its blocks train in these.
    """

    blocks: ModuleType
    learnable: tuple[str, ...]
    on_chip: bool = False


class TimeLast(nn.Module):
    """A block of spikestrap, as `block`, that takes and gives (N, C, T) or (N, C, H, W, T).

    In ANN and FIT mode it takes any T, averages, and gives T = 1.
    """

    family: ClassVar[Family]
    direct: ClassVar[bool]

    input_sizes: Tensor

    def __init__(self, made: nn.Module, input_shape: tuple[int, ...], count_log: bool) -> None:
        super().__init__()
        self.block = made
        self.count_log = count_log
        # Of one input, (C, H, W), 0 where not known yet; kept with the weights, as the export
        # needs it.
        sizes = (*input_shape, 0, 0, 0)[:3]
        self.register_buffer("input_sizes", torch.tensor(sizes))
        self._shape: tuple[int, ...] | None = None

    def forward(self, x: Tensor, mode: Mode | None = None) -> Any:
        """The block's output, time last; with count_log, (output, event rate or None)."""
        x = time_first(x, type(self).__name__)
        if self.input_shape != x.shape[2:]:
            self.input_sizes.copy_(torch.tensor((*x.shape[2:], 0, 0)[:3]))
        default = Mode.SNN if self.direct else Mode.ANN
        y = self._run(x, default if mode is None else Mode.of(mode))
        rate = None
        if isinstance(y, tuple):
            y, rate = y
        self._shape = tuple(y.shape[2 if has_time(y) else 1 :])
        y = time_last(y)
        return (y, rate) if self.count_log else y

    def _run(self, x: Tensor, mode: Mode) -> Any:
        return self.block(x, mode=mode)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        rename_lava_dl(self, state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C,) or (C, H, W) of one input; () before the first, where the block leaves it open."""
        return tuple(int(size) for size in self.input_sizes if size)

    @property
    def shape(self) -> torch.Size:
        """(C,) or (C, H, W) of one output. Raises SpikestrapError before the first forward."""
        if self._shape is None:
            raise SpikestrapError(f"{type(self).__name__}: its shape shows at the first forward")
        return torch.Size(self._shape)

    def export_hdf5(self, handle: h5py.Group) -> None:
        """Writes this layer, as `spikestrap.save` writes it, into an h5py group of a .net file.

        Nothing here changes. Raises SpikestrapError for what a .net file cannot hold.
        """
        from .. import fixed
        from ..exchange import netx

        name = type(self).__name__
        if not self.input_shape:
            raise SpikestrapError(
                f"{name}: the export needs the shape of its input: run one batch first"
            )
        netx.write_layer(handle, fixed.layer_of(self.block, self.input_shape))


class WithNeuron(TimeLast):
    """A block with a neuron and a transfer curve."""

    block: blocks.Block

    @classmethod
    def _neuron(cls, params: Params) -> dict[str, Any]:
        return translate(params, cls.family.learnable, cls.__name__)

    @classmethod
    def _options(cls, delay_shift: bool | None, count_log: bool, delay: bool) -> dict[str, bool]:
        if delay:
            raise SpikestrapError(
                f"{cls.__name__}: delay=True is not carried over (a rate has no time to delay, and "
                "lava-dl's bootstrap drops it); spikestrap.block.Delay delays spikes"
            )
        shift = cls.direct if delay_shift is None else delay_shift
        return {"count_log": count_log, "delay_shift": shift}

    def _quantize(self, pre_hook_fx: Any) -> None:
        if _wants_chip(self.family, pre_hook_fx, type(self).__name__):
            self.block.quantize()

    @property
    def neuron(self) -> Neuron:
        """The neuron, time first."""
        return self.block.unit.neuron

    @property
    def f(self) -> AnnSampler:
        """The sampler with its transfer curve, time last."""
        return AnnSampler(sampler=self.block.unit.sampler)

    def fit(self) -> None:
        """Fits the curve to what was sampled."""
        self.block.unit.sampler.fit()


class SynapseView:
    """What scripts ask of a block's synapse."""

    def __init__(self, synapse: Synapse) -> None:
        self._synapse = synapse

    @property
    def weight(self) -> Tensor:
        """The effective weight, in torch's shape for such a layer, before rounding."""
        return self._synapse.weight

    @property
    def shape(self) -> torch.Size:
        """That of the weight."""
        return self._synapse.weight.shape

    @property
    def weight_norm_enabled(self) -> bool:
        """Whether direction and length of the weights train apart."""
        return hasattr(self._trained, "original0")

    @property
    def grad_norm(self) -> float:
        """Norm of the weights' gradient, with weight norm that of their lengths, over its size."""
        trained = self._trained
        if self.weight_norm_enabled:
            trained = trained.original0
        elif not isinstance(trained, Tensor):
            trained = trained.original
        return 0.0 if trained.grad is None else float(trained.grad.norm()) / trained.numel()

    @property
    def _trained(self) -> Any:
        layer: Any = self._synapse.layer
        return layer.parametrizations.weight if hasattr(layer, "parametrizations") else layer.weight


class Input(WithNeuron):
    """Turns a value x into a current, weight * x + bias, and spikes: any shape, the same out.

    weight, bias: both learnable; None and None leave them out. The current is rounded to whole
    1/64, as the chip's input layer does.
    """

    def __init__(
        self,
        neuron_params: Params = None,
        weight: float | None = None,
        bias: float | None = None,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        if (weight is None) != (bias is None):
            raise SpikestrapError(
                f"{type(self).__name__}: expected weight and bias, or neither; got {weight=}, "
                f"{bias=}"
            )
        gain, offset = (1.0, 0.0) if weight is None or bias is None else (weight, bias)
        # `block.Input` is made for pixels in [0, 1], of which the chip's input layer takes
        # 2 x - 1. Here x is what that layer takes.
        made = self.family.blocks.Input(
            self._neuron(neuron_params),
            2 * gain,
            offset - gain,
            **self._options(delay_shift, count_log, False),
        )
        made.synapse.requires_grad_(weight is not None)
        super().__init__(made, (), count_log)
        self._quantize(EIGHT_BIT)

    def _run(self, x: Tensor, mode: Mode) -> Any:
        pixels = hold((x[0] + 1) / 2, len(x)) if is_held(x) else (x + 1) / 2
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
    def synapse(self) -> SynapseView:
        """Its weights."""
        synapse = self.block.synapse
        assert isinstance(synapse, Synapse)
        return SynapseView(synapse)


class Dense(WithSynapse):
    """Fully connected: (N, in_neurons, T) to (N, out_neurons, T).

    weight_scale multiplies torch's initial weights. mask (out_neurons, in_neurons): which to keep.
    pre_hook_fx: left out for 8-bit weights, None for float ones. delay_shift: spikes go on one
    step late. count_log: gives (output, event rate).
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
        made = self.family.blocks.Dense(
            self._neuron(neuron_params),
            _count(in_neurons, "in_neurons", type(self).__name__),
            _count(out_neurons, "out_neurons", type(self).__name__),
            weight_scale=float(weight_scale),
            weight_norm=weight_norm,
            **self._options(delay_shift, count_log, delay),
        )
        _keep_only(made.synapse, mask, type(self).__name__)
        super().__init__(made, (in_neurons,), count_log)
        self._quantize(pre_hook_fx)


class Conv(WithSynapse):
    """2-d convolution: (N, in_features, H, W, T) to (N, out_features, H', W', T).

    The options are those of `Dense`.
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
        made = self.family.blocks.Conv(
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
            **self._options(delay_shift, count_log, delay),
        )
        super().__init__(made, (), count_log)
        self._quantize(pre_hook_fx)


class Pool(WithNeuron):
    """Sums windows, times weight_scale, into a neuron: (N, C, H, W, T) to (N, C, H', W', T).

    Windows must tile the image. A norm in neuron_params is left out, as there; the options are
    those of `Dense`.
    """

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
            **self._options(delay_shift, count_log, delay),
        )
        super().__init__(made, (), count_log)
        self._quantize(pre_hook_fx)

    def _run(self, x: Tensor, mode: Mode) -> Any:
        pool: Any = self.block.synapse.pool
        window, step, edge = (_pair(s) for s in (pool.kernel_size, pool.stride, pool.padding))
        sides = [s + 2 * e - w for s, e, w in zip(x.shape[3:], edge, window, strict=True)]
        if any(side % s for side, s in zip(sides, step, strict=True)):
            raise SpikestrapError(
                f"{type(self).__name__}: windows {window} at stride {step} do not tile images "
                f"{tuple(x.shape[3:])}; lava-dl adds zeros at one edge, which its export leaves "
                "out: pad the images, or crop them"
            )
        return super()._run(x, mode)


class Flatten(TimeLast):
    """Images to vectors: (N, C, H, W, T) to (N, C H W, T)."""

    def __init__(self, count_log: bool = False) -> None:
        super().__init__(blocks.Flatten(), (), count_log)


class Affine(TimeLast):
    """The readout, without spikes: (N, in_neurons, T) to (N, out_neurons, T).

    In slayer with dynamics=True the output is the voltage of a neuron that never resets, else
    the weighted input; in bootstrap, as there, always the latter. The options are those of
    `Dense`.
    """

    block: blocks.Affine

    def __init__(
        self,
        neuron_params: Params,
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
        dynamics: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        name = type(self).__name__
        made = self.family.blocks.Affine(
            None,
            _count(in_neurons, "in_neurons", name),
            _count(out_neurons, "out_neurons", name),
            bias=False,
            weight_scale=float(weight_scale),
            weight_norm=weight_norm,
        )
        _keep_only(made.synapse, mask, name)
        super().__init__(made, (in_neurons,), count_log)
        on_chip = _wants_chip(self.family, pre_hook_fx, name)
        if on_chip:
            made.quantize()
        self.membrane: Neuron | None = None
        if self.direct and dynamics:
            params = {**translate(neuron_params, self.family.learnable, name), "reset": "none"}
            free, _ = split_neuron(params, made.neuron_type, name)
            self.membrane = ChipCUBA(free) if on_chip else free

    def _run(self, x: Tensor, mode: Mode) -> Tensor:
        if not mode.spiking:
            return self.block(x)
        z = over_time(self.block, x)
        return z if self.membrane is None else _voltage(self.membrane, z)

    @property
    def synapse(self) -> SynapseView:
        """Its weights."""
        return SynapseView(self.block.synapse)


class Average(TimeLast):
    """Means of num_outputs groups of neurons, in order: (N, ..., T) to (N, num_outputs, T)."""

    def __init__(self, num_outputs: int, count_log: bool = False) -> None:
        super().__init__(_GroupMean(_count(num_outputs, "num_outputs", "Average")), (), count_log)


class _GroupMean(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        """Spikes (T, N, ...) to (T, N, groups)."""
        vectors = x.flatten(2)
        if vectors.shape[2] % self.groups:
            raise SpikestrapError(
                f"Average: {vectors.shape[2]} neurons do not make {self.groups} groups of one size"
            )
        return vectors.unflatten(2, (self.groups, -1)).mean(3)


SURFACES = (Input, Dense, Conv, Pool, Flatten, Affine, Average)


def bind(family: Family, module: str, *, direct: bool) -> tuple[Any, ...]:
    """The classes in `SURFACES` for blocks of that neuron, to be names of `module`.

    direct: as in slayer, else as in bootstrap.
    """
    return tuple(
        type(
            surface.__name__,
            (surface,),
            {
                "family": family,
                "direct": direct,
                "__module__": module,
                "__doc__": surface.__doc__,
            },
        )
        for surface in SURFACES
    )


def _voltage(neuron: Neuron, z: Tensor) -> Tensor:
    """The membrane of a neuron that does not reset, (T, N, ...); its state's second part."""
    state, voltages = neuron.init_state(z[0]), []
    for step in z:
        _, state = neuron.step(step, state)
        voltages.append(state[1])
    return torch.stack(voltages)


def _wants_chip(family: Family, pre_hook_fx: Any, where: str) -> bool:
    if pre_hook_fx not in (EIGHT_BIT, None):
        raise SpikestrapError(
            f"{where}: pre_hook_fx must be left out, for 8-bit weights, or None, for float ones; "
            f"got {pre_hook_fx!r}"
        )
    return family.on_chip and pre_hook_fx is not None


class _Mask(nn.Module):
    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def _keep_only(synapse: Synapse, mask: Tensor | None, where: str) -> None:
    """Holds the weights outside the mask (out_neurons, in_neurons) at zero."""
    if mask is None:
        return
    if mask.shape != synapse.weight.shape:
        raise SpikestrapError(
            f"{where}: expected a mask of shape {tuple(synapse.weight.shape)}, one a weight, got "
            f"{tuple(mask.shape)}"
        )
    register_parametrization(synapse.layer, "weight", _Mask(mask.to(synapse.weight.dtype)))


def _count(value: Any, name: str, where: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise SpikestrapError(f"{where}: {name} must be a whole number >= 1, got {value!r}")
    return value


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
