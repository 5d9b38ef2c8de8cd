"""A block of spikestrap behind lava-dl's surface: time last, and what scripts ask of a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from .. import block as blocks
from ..block.recurrent import SelfDriven
from ..errors import SpikestrapError, warn
from ..grid import Grid
from ..neuron import Neuron
from ..neuron.chip import filters_current
from ..neuron.parameter import keep_in_bounds
from ..norm import MeanOnlyNorm
from ..routine import Mode
from ..timeaxis import has_time
from .afterwards import given_to_the_block, refuse_set_afterwards
from .checkpoint import rename_lava_dl
from .neuron_params import translate
from .sampler import AnnSampler
from .timelast import Features, accepted, time_first, time_last
from .weights import PRE_HOOK_FX

if TYPE_CHECKING:
    import h5py

Params = Mapping[str, Any] | None
NORM = Grid(2 / 64, -254 / 64, 256 / 64)  # of a norm's bias: lava-dl has the mean in 8 bits
MAX_DELAY = 62  # of lava-dl's blocks, which is what a chip can hold
_DELAY_GIVEN = "delay is not set afterwards but given to the block: delay=True has delays"
EIGHT_BIT = "8-bit"  # lava-dl's default for pre_hook_fx is a function that does this


@dataclass(frozen=True)
class Family:
    """Blocks of one neuron: where spikestrap has them, what requires_grad trains.

    on_chip: the neuron has a form in the chip's integers, so its blocks train in these.
    complex_weights: lava-dl's blocks of that neuron have complex weights. encoder_ignores: keys
    of the neuron dict that are not for the Input block. sends_changes: as sigma-delta neurons do.
    shift: whether direct training sends spikes on a step late unless told otherwise.
    required: keys of the neuron dict that have no default in lava-dl.
    """

    blocks: ModuleType
    learnable: tuple[str, ...]
    on_chip: bool = False
    complex_weights: bool = False
    encoder_ignores: tuple[str, ...] = ()
    sends_changes: bool = False
    shift: bool = True
    required: tuple[str, ...] = ()

    def translate(self, params: Params, where: str) -> dict[str, Any]:
        """lava-dl's dict of that neuron, as spikestrap's blocks take it."""
        made = translate(params, self.learnable, where, self.sends_changes)
        for name in self.required:
            if name not in made:
                raise SpikestrapError(
                    f"{where}: expected {name} in the neuron dict, which has no default in lava-dl"
                )
        return made

    def weighted(self, name: str) -> Any:
        """spikestrap's block "Dense" or "Conv"."""
        return getattr(self.blocks, f"Complex{name}" if self.complex_weights else name)


class TimeLast(nn.Module):
    """A block of spikestrap, as `block`, that takes and gives (N, C, T) or (N, C, H, W, T).

    In ANN and FIT mode it takes any T, averages, and gives T = 1.
    """

    family: ClassVar[Family]
    direct: ClassVar[bool]
    # What it does besides running the block, in words; None: the block alone gives the same.
    adds: str | None = None
    # What its synapse takes; None: any.
    features: Features | None = None

    input_sizes: Tensor
    pre_hook_fx = PRE_HOOK_FX
    mask = given_to_the_block("mask", "Dense and readouts take one")

    def __init__(self, made: nn.Module, input_shape: tuple[int, ...], count_log: bool) -> None:
        super().__init__()
        self.block = made
        self.count_log = count_log
        # Of one input, (C, H, W), 0 where not known yet; kept with the weights, as the export
        # needs it.
        sizes = (*input_shape, 0, 0, 0)[:3]
        self.register_buffer("input_sizes", torch.tensor(sizes))
        self._seen: tuple[int, ...] = ()  # the same, without asking the device
        self._shape: tuple[int, ...] | None = None

    def forward(self, x: Tensor, mode: Mode | None = None) -> Any:
        """The block's output, time last; with count_log, (output, event rate or None)."""
        name = type(self).__name__
        features = self.features
        taken = x if features is None else accepted(x, features, name, self._weights_dtype)
        x, one_pixel = time_first(taken, name), taken.ndim < x.ndim
        if self._seen != x.shape[2:]:
            self._seen = tuple(x.shape[2:])
            self.input_sizes.copy_(torch.tensor((*self._seen, 0, 0)[:3]))
        default = Mode.SNN if self.direct else Mode.ANN
        y = self._run(x, default if mode is None else Mode.of(mode))
        rate = None
        if isinstance(y, tuple):
            y, rate = y
        self._shape = tuple(y.shape[2 if has_time(y) else 1 :])
        y = time_last(y)
        y = y[:, :, None, None] if one_pixel else y
        return (y, rate) if self.count_log else y

    def _run(self, x: Tensor, mode: Mode) -> Any:
        return self.block(x, mode=mode)

    @property
    def _weights_dtype(self) -> torch.dtype | None:
        synapse = getattr(self.block, "synapse", None)
        weight = next(synapse.parameters(), None) if isinstance(synapse, nn.Module) else None
        return None if weight is None else weight.dtype

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        rename_lava_dl(self, state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)
        self._seen = ()

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

        Nothing here changes. Warns of what the layer does beside its weights, such as a readout's
        membrane, which lava-dl leaves out as well. Raises SpikestrapError for what a .net file
        cannot hold.
        """
        from .. import fixed
        from ..exchange import netx

        name = type(self).__name__
        if not self.input_shape:
            raise SpikestrapError(
                f"{name}: the export needs the shape of its input: run one batch first"
            )
        layer = fixed.layer_of(self.block, self.input_shape)
        if self.adds is not None:
            warn(
                f"{name} {self.adds}, which a .net file has no place for: it reads out the "
                "weighted input"
            )
        netx.write_layer(handle, layer)


class WithNeuron(TimeLast):
    """A block with a neuron and a transfer curve."""

    block: blocks.Block

    @classmethod
    def _neuron(cls, params: Params) -> dict[str, Any]:
        return cls.family.translate(params, cls.__name__)

    @classmethod
    def _options(cls, delay_shift: bool | None, count_log: bool) -> dict[str, bool]:
        shift = (cls.direct and cls.family.shift) if delay_shift is None else delay_shift
        return {"count_log": count_log, "delay_shift": shift}

    def _add_delay(self, delay: bool, channels: int | None) -> None:
        """Behind the neuron and learnable, one a channel, as there; it starts below a step."""
        if delay not in (True, False):
            raise SpikestrapError(f"{type(self).__name__}: delay must be a bool, got {delay!r}")
        if not delay:
            return
        if not self.direct or channels is None:
            why = (
                "a rate has no time to delay, and lava-dl's bootstrap drops it"
                if not self.direct
                else "it is not told its channels"
            )
            raise SpikestrapError(
                f"{type(self).__name__}: delay=True is not carried over ({why}); "
                "spikestrap.block.Delay delays spikes, time first"
            )
        first = torch.rand(channels)
        self.block.delay = blocks.Delay(channels, MAX_DELAY, initial=first, rounding="down")

    def _quantize(self, pre_hook_fx: Any) -> None:
        if wants_chip(self.family, pre_hook_fx, type(self).__name__):
            self.block.quantize()
            if isinstance(self.block.norm, MeanOnlyNorm):
                self.block.norm.grid = NORM
        elif self.family.on_chip and self.block.norm and filters_current(self.block.unit.neuron):
            raise SpikestrapError(
                f"{type(self).__name__}: lava-dl norms the current, behind its decay, where a norm "
                "here stands before it: beside a norm the current_decay must be 1 and fixed; "
                'spikestrap.block.cuba, time first, has norm="mean_only" before the decay'
            )

    def _run(self, x: Tensor, mode: Mode) -> Any:
        if "delay" in self._modules:  # torch asks no property for those
            raise SpikestrapError(_DELAY_GIVEN)
        refuse_set_afterwards(self.neuron, type(self).__name__)  # in bounds, as there at every run
        return super()._run(x, mode)

    @property
    def neuron(self) -> Neuron:
        """The neuron, time first; what it learns is within its bounds, as it runs with it."""
        neuron = self.block.unit.neuron
        keep_in_bounds(neuron)
        return neuron.neuron if isinstance(neuron, SelfDriven) else neuron

    @property
    def delay(self) -> blocks.Delay | None:
        """The delays of its spikes, time first; None without delay=True."""
        return self.block.delay

    @delay.setter
    def delay(self, delay: object) -> None:
        raise SpikestrapError(_DELAY_GIVEN)

    @property
    def delay_shift(self) -> bool:
        """Whether spikes go on one step late; to be set as well."""
        return self.block.delay_shift

    @delay_shift.setter
    def delay_shift(self, shift: bool) -> None:
        self.block.delay_shift = shift

    @property
    def f(self) -> AnnSampler:
        """The sampler with its transfer curve, time last."""
        return AnnSampler(sampler=self.block.unit.sampler)

    def fit(self) -> None:
        """Fits the curve to what was sampled."""
        self.block.unit.sampler.fit()


def wants_chip(family: Family, pre_hook_fx: Any, where: str) -> bool:
    """Whether the block is to compute on the chip's numbers."""
    if pre_hook_fx not in (EIGHT_BIT, None):
        raise SpikestrapError(
            f"{where}: pre_hook_fx must be left out, for 8-bit weights, or None, for float ones; "
            f"got {pre_hook_fx!r}"
        )
    return family.on_chip and pre_hook_fx is not None
