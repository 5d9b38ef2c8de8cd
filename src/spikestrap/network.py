"""A network: blocks in a row, one mode for each unit, logits in every mode."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .block import Affine, AvgPool, Block, Delay, Dropout, Flatten
from .counts import whole_or_none
from .errors import SpikestrapError, at
from .kernel.memory import values_hidden
from .quantize import check_precision
from .routine import LayerMode, Mode
from .synapse import ElementWise, Synapse
from .timeaxis import compact, has_time, hold, ragged, time_mean
from .unit import units_of

if TYPE_CHECKING:
    from .frozen import Frozen

Modes = Mode | LayerMode | Sequence[Mode]


class Network(nn.Module):
    """Blocks, run one after the other.

    time_steps: T for static inputs (N, features...), held for so long; None for inputs that
    have time, (T, N, features...). Features are flat (C,) or images (C, H, W).
    precision: "float", or "loihi": weights of so many `bits` (8), biases, thresholds and decays
    on the chip's grids and neurons in its integers, in every mode, so that the network trains
    on what the chip will hold, and its SNN mode gives the spikes of `spikestrap.fixed`.

    >>> import spikestrap as ss
    >>> neuron = dict(threshold=1.0, voltage_decay=0.1)
    >>> net = Network(
    ...     ss.block.lif.Dense(neuron, 64, 32),
    ...     ss.block.lif.Affine(neuron, 32, 10),
    ...     time_steps=8,
    ... )
    >>> x = torch.rand(16, 64)
    >>> net(x, ss.Mode.SAMPLE).shape, net(x, ss.Mode.FIT).shape, net(x, ss.Mode.ANN).shape
    (torch.Size([16, 10]), torch.Size([16, 10]), torch.Size([16, 10]))
    """

    def __init__(
        self,
        *blocks: nn.Module,
        time_steps: int | None = None,
        precision: str = "float",
        bits: int = 8,
    ) -> None:
        super().__init__()
        if not blocks:
            raise SpikestrapError("Network: expected at least one block, got none")
        for number, module in enumerate(blocks):
            _check_takes_mode(number, module)
        self.blocks = nn.ModuleList(blocks)
        self.time_steps = time_steps
        self.precision = check_precision(precision)
        if precision == "loihi":
            _quantize(blocks, bits)
        self._known: list[nn.Module] = []
        self._look_at_blocks()

    @property
    def time_steps(self) -> int | None:
        """T of static inputs. The curves hold for the T at which they were sampled."""
        return self._time_steps

    @time_steps.setter
    def time_steps(self, value: int | None) -> None:
        self._time_steps = whole_or_none("Network: time_steps", value, 1)

    def forward(
        self, x: Tensor, mode: Modes = Mode.SNN, lengths: Tensor | None = None
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits (N, out): the last block's output, averaged over time.

        mode: one for all units, one a unit, or what the scheduler gave. lengths: whole numbers
        (N,), how many steps of each sample are valid, from the first on; the rest is padding,
        which counts nowhere (see `spikestrap.ragged`). Blocks made with count_log=True add a
        list of their event rates: (logits, rates).
        """
        x = enter(x, self.time_steps)
        check_finite(x)
        if lengths is None:
            return self._run(x, mode)
        with ragged(lengths):
            self._check_lengths(x, lengths)
            return self._run(x, mode)

    def _look_at_blocks(self) -> None:
        """Names the units for errors and warnings, of blocks put in since the last look as well.

        Raises SpikestrapError for such a block that is not at the network's precision.
        """
        if torch.compiler.is_compiling() or self._known == (blocks := list(self.blocks)):
            return
        if self.precision == "loihi":
            for number, module in enumerate(blocks):
                if any(map(_is_float, module.modules())):
                    raise SpikestrapError(
                        f"block {number} ({type(module).__name__}) was put in after the network "
                        "was built, and is not at the chip's precision; expected a new network of "
                        'the blocks, Network(*net.blocks, ..., precision="loihi"), which keeps '
                        "their weights and curves"
                    )
        for name, unit in units_of(self):
            unit.sampler.name = name
        self._known = blocks

    def _run(self, x: Tensor, mode: Modes) -> Tensor | tuple[Tensor, list[Tensor]]:
        self._look_at_blocks()
        rates: list[Tensor] = []
        for number, (block, block_mode) in enumerate(
            zip(self.blocks, self._modes(mode), strict=True)
        ):
            try:
                x = block(x, mode=block_mode)
            except SpikestrapError as error:
                where = f"block {number} ({type(block).__name__}): {error}"
                raise type(error)(where) from error
            except RuntimeError as error:
                if "type" in str(error) and (wrong := _other_precision(block, x)):
                    where = f"block {number} ({type(block).__name__}): {wrong}"
                    raise SpikestrapError(where) from error
                raise
            if isinstance(x, tuple):
                x, rate = x
                rates.append(rate)
        logits = time_mean(x) if has_time(x) else x
        return (logits, rates) if rates else logits

    def freeze(self) -> Frozen:
        """The network as it is now, for inference as an SNN on the CPU and nothing else: fast.

        `net.freeze()(x)` are the logits of `net.eval()(x, Mode.SNN)`, up to the rounding of
        float32: norms are folded into weights, and sums are taken in another order. Where that
        tips a membrane over its threshold, or not, a spike differs; with precision="loihi"
        nothing is rounded and all spikes are the same. Blocks made with count_log=True do not
        count. Blocks of your own, layers with hooks or a forward of their own, and neurons that
        draw noise or give other numbers than 0 and 1, run as they are, on floats; with one of them
        there is less to gain. What happens to the network afterwards does not reach the frozen one,
        and freezing does not change the network. What `freeze` gives can be pickled.

        Raises SpikestrapError for a network that is not float32 on the CPU, or that has a
        forward of its own.

        >>> import spikestrap as ss
        >>> neuron = dict(threshold=1.0, voltage_decay=0.1, norm="batch")
        >>> net = Network(
        ...     ss.block.lif.Dense(neuron, 64, 32),
        ...     ss.block.lif.Affine(neuron, 32, 10),
        ...     time_steps=4,
        ... )
        >>> frozen = net.freeze()
        >>> x = torch.rand(16, 64)
        >>> torch.allclose(frozen(x), net.eval()(x, ss.Mode.SNN), atol=1e-5)
        True
        """
        from .frozen import Frozen  # which stands upon this module

        return Frozen.of(self)

    def _check_lengths(self, x: Tensor, lengths: Tensor) -> None:
        if self.time_steps is not None:
            raise SpikestrapError(
                "Network: lengths are for inputs that have time, with time_steps=None; "
                f"got them with time_steps={self.time_steps}"
            )
        if lengths.device.type == "cpu" and not torch.compiler.is_compiling():
            most = int(lengths.max())
            if most > x.shape[0]:
                raise SpikestrapError(
                    f"Network: lengths: expected at most T = {x.shape[0]} steps, got {most}"
                )

    def _modes(self, mode: Modes) -> Iterator[Mode]:
        """One mode a block. Blocks without a unit do not count; theirs does not matter."""
        if isinstance(mode, Mode | str):
            return repeat(Mode.of(mode), len(self.blocks))
        has_unit = [any(True for _ in units_of(block)) for block in self.blocks]
        if isinstance(mode, LayerMode):
            modes = iter(mode)
        else:
            try:
                listed = [Mode.of(m) for m in mode]
            except TypeError:
                Mode.of(mode)
                raise
            if len(listed) != sum(has_unit):
                raise SpikestrapError(
                    f"Network: expected {sum(has_unit)} modes, one a unit, got {len(listed)}"
                )
            modes = iter(listed)
        return (next(modes) if unit else Mode.SNN for unit in has_unit)


def _check_takes_mode(number: int, module: object) -> None:
    if not isinstance(module, nn.Module):
        raise SpikestrapError(
            f"Network: expected blocks, one after the other, got a {type(module).__name__}"
        )
    parameters = inspect.signature(module.forward).parameters.values()
    if not any(p.name == "mode" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise SpikestrapError(
            f"Network: block {number} is a {type(module).__name__}, which takes no mode; expected "
            "spikestrap's blocks, or modules that are called as block(x, mode=mode)"
        )


def enter(x: Tensor, time_steps: int | None) -> Tensor:
    """An input as blocks take it, (T, N, features...); raises for types and shapes they do not."""
    if not isinstance(x, Tensor):
        raise SpikestrapError(
            f"Network: expected a tensor, got {type(x).__name__}; torch.from_numpy makes one of "
            "an array"
        )
    if not x.is_floating_point():
        raise SpikestrapError(
            f"Network: expected a floating-point input, got {x.dtype}; scale integer images first, "
            "as in x.float() / 255, and take spikes and counts as they are, x.float()"
        )
    static = time_steps is not None
    if has_time(x) == static or x.ndim not in (2, 3, 4, 5):
        wanted = "(N, C) or (N, C, H, W)" if static else "(T, N, C) or (T, N, C, H, W)"
        raise SpikestrapError(
            f"Network: with time_steps={time_steps} expected an input {wanted}, "
            f"got shape {tuple(x.shape)}"
        )
    if x.numel() == 0:
        raise SpikestrapError(f"Network: the input is empty, shape {tuple(x.shape)}")
    return hold(x, time_steps) if time_steps is not None else x


def _other_precision(block: nn.Module, x: Tensor) -> str | None:
    """What is wrong where torch refuses an input's type: it is not that of the weights."""
    synapse = getattr(block, "synapse", None)
    parameters = synapse.parameters() if isinstance(synapse, nn.Module) else iter(())
    weights = next((p.dtype for p in parameters), x.dtype)
    if weights == x.dtype or torch.is_autocast_enabled(x.device.type):
        return None
    return (
        f"expected an input of {weights}, as its weights are, got {x.dtype}; x.to({weights}) is one"
    )


def check_finite(x: Tensor) -> None:
    """Raises where an input (T, N, ...) on the CPU holds NaN or inf."""
    # On an accelerator the check would wait for it; there NaN shows in the loss.
    seen = x.device.type == "cpu" and not (torch.compiler.is_compiling() or values_hidden())
    if seen and not _finite(compact(x)):
        raise SpikestrapError("Network: the input holds NaN or inf; expected finite numbers")


def refuse_own_forward(net: Network, who: str) -> None:
    """Raises where a class of its own does more than to run the blocks one after the other.

    And where these are not such that they would run.
    """
    if type(net).forward is not Network.forward:
        raise SpikestrapError(
            f"{who}: {type(net).__name__} has a forward of its own, which would not be run; "
            "expected blocks in a row, as Network runs them"
        )
    net._look_at_blocks()


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one input, or SpikestrapError.

    >>> check_shape([1, 28, 28])
    (1, 28, 28)
    """
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if len(sizes) not in (1, 3) or not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise SpikestrapError(f"input_shape must be (C,) or (C, H, W), got {shape!r}")
    return tuple(int(n) for n in sizes)


def flat_input(blocks: Iterable[nn.Module]) -> tuple[int] | None:
    """The shape (C,) of one input, where a dense synapse comes first; else None."""
    for module in blocks:
        synapse = getattr(module, "synapse", None)
        if isinstance(synapse, Synapse) and synapse.feature_axes == 1:
            return (synapse.channels_in,)
        if not isinstance(synapse, ElementWise) and not isinstance(module, Delay | Dropout):
            break
    return None


def _quantize(blocks: Sequence[nn.Module], bits: int) -> None:
    """Puts blocks on the chip's grids; the factor of a pooling goes into the weights behind it."""
    gain, pool = 1.0, ""
    for number, module in enumerate(blocks):
        where = f"block {number} ({type(module).__name__})"
        if isinstance(module, AvgPool):
            with at(where):
                gain *= module.quantize()
            pool = where
        elif isinstance(module, Block | Affine):
            with at(where):
                module.quantize(bits).gain = gain
            gain, pool = 1.0, ""
        elif not isinstance(module, Flatten | Delay | Dropout):
            raise SpikestrapError(
                f"{where}: the chip's precision knows blocks with a neuron, Affine, Flatten, "
                "AvgPool, Delay and Dropout"
            )
    if pool:
        raise SpikestrapError(f"{pool}: expected a block with weights behind it, found none")


def _is_float(module: nn.Module) -> bool:
    """Whether `_quantize` has not put it on the chip's grids, but would."""
    if isinstance(module, AvgPool):
        return not module.sums
    return isinstance(module, Block | Affine) and module.quantizer is None


def _finite(x: Tensor) -> bool:
    # A finite sum settles it in one pass; a sum may also overflow, so look again.
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())
