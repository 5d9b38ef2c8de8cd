"""From a network of precision="loihi" to integer layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from .. import block
from ..block.recurrent import SelfDriven
from ..errors import SpikestrapError, at
from ..network import Network as TorchNetwork
from ..network import check_shape, flat_input, refuse_own_forward
from ..neuron import ChipCUBA
from ..norm import Norm
from ..quantize import Quantizer
from ..synapse import ElementWise, Pooling, Synapse, zeros_around
from . import layers
from .network import Network

_KNOWN = (block.Block, block.Affine, block.AvgPool, block.Delay, block.Dropout, block.Flatten)


@torch.no_grad()
def from_network(net: TorchNetwork, input_shape: Sequence[int] | None = None) -> Network:
    """The integer network that gives the spikes of `net`, which stays as it is.

    net: of precision="loihi"; its running statistics are folded in, as in evaluation.
    input_shape: (C,) or (C, H, W) of one input; may be left out where the first synapse is
    dense. A pooling without a neuron becomes part of the layer behind it, a `Pool` a
    convolution, a `Delay` part of the layer before it. Raises SpikestrapError for what integer
    layers cannot express.

    >>> import spikestrap as ss
    >>> neuron = dict(threshold=1.0, voltage_decay=0.0)
    >>> net = ss.Network(
    ...     ss.block.cuba.Input(neuron),
    ...     ss.block.cuba.Dense(neuron, 4, 3),
    ...     ss.block.cuba.Affine(neuron, 3, 2),
    ...     time_steps=8,
    ...     precision="loihi",
    ... )
    >>> x = torch.rand(5, 4)
    >>> logits = from_network(net).run(x, 8).logits
    >>> np.allclose(logits, net(x).detach(), atol=1e-6)
    True
    """
    if net.precision != "loihi":
        raise SpikestrapError(
            'expected a network of precision="loihi", whose weights the chip can hold; '
            f"got precision={net.precision!r}"
        )
    refuse_own_forward(net, "fixed.from_network")
    rest = list(enumerate(net.blocks))
    for number, module in rest:
        with at(f"block {number} ({type(module).__name__})"):
            _refuse_own_run(module)
            _refuse_not_finite(module)
    entry = _entry(net, rest, input_shape)
    chain = _Chain([entry], entry.shape)
    for number, module in rest:
        with at(f"block {number} ({type(module).__name__})"):
            chain.add(module)
    return Network(chain.layers, pipelined=_pipelined(net), time_steps=net.time_steps)


@torch.no_grad()
def layer_of(module: nn.Module, input_shape: Sequence[int]) -> layers.Layer:
    """The integer layer of one block alone, at the chip's precision, which stays as it is.

    input_shape: (C,) or (C, H, W) of one input. Raises SpikestrapError for what integer layers
    cannot express.

    >>> import spikestrap as ss
    >>> dense = ss.block.cuba.Dense(dict(threshold=1.0), 4, 3)
    >>> _ = dense.quantize()
    >>> layer_of(dense, (4,)).weight.shape
    (3, 4)
    """
    shape = check_shape(input_shape)
    _refuse_own_run(module)
    _refuse_not_finite(module)
    if isinstance(module, block.Flatten):
        return layers.Flatten((math.prod(shape),))
    if isinstance(module, block.Block) and isinstance(module.synapse, ElementWise):
        return _input(module, module.synapse, shape)
    chain = _Chain([], shape)
    chain.add(module)
    if not chain.layers:
        raise SpikestrapError("alone, integer layers have no counterpart of it")
    return chain.layers[-1]


def _refuse_own_run(module: nn.Module) -> None:
    """What derives from a block and runs otherwise is not that block."""
    kind, known = type(module), next((k for k in _KNOWN if isinstance(module, k)), None)
    own = known is not None and kind.forward is not known.forward
    if isinstance(module, block.Block):
        own = own or type(module)._run is not block.Block._run
    if own:
        raise SpikestrapError("it has a forward of its own, which integer layers would not run")


def _refuse_not_finite(module: nn.Module) -> None:
    """Rounding would take infinity for the end of the grid."""
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise SpikestrapError(f"{name}: expected finite numbers, got NaN or inf")


def _input(module: block.Block, synapse: ElementWise, shape: tuple[int, ...]) -> layers.Input:
    weight, bias = _quantizer(module).element_wise(synapse)
    half = round(weight.item() * 32)
    return layers.Input(shape, _neuron(module), weight=half, bias=round(bias.item() * 64) + half)


def _entry(
    net: TorchNetwork, rest: list[tuple[int, nn.Module]], input_shape: Sequence[int] | None
) -> layers.Input:
    """The input layer; takes what it stands for off the front of `rest`."""
    flat = False
    while rest and isinstance(rest[0][1], block.Flatten | block.Dropout):
        flat = flat or isinstance(rest[0][1], block.Flatten)
        rest.pop(0)
    shape = flat_input(m for _, m in rest) if input_shape is None else check_shape(input_shape)
    if shape is None:
        raise SpikestrapError(
            "the network does not say how large its input is: pass input_shape, (C, H, W)"
        )
    shape = (math.prod(shape),) if flat else shape
    first = rest[0][1] if rest else None
    if isinstance(first, block.Block) and isinstance(first.synapse, ElementWise):
        if net.time_steps is None:
            raise SpikestrapError(
                "a chip's Input block takes a static input, held for T steps; the network's takes "
                "one that changes over time: set its time_steps, or leave the block out and "
                "feed it spikes"
            )
        rest.pop(0)
        return _input(first, first.synapse, shape)
    if net.time_steps is not None:
        raise SpikestrapError(
            "a chip takes a static input through an Input block, which turns it into spikes: "
            f"expected one as the first block, got {type(first).__name__}"
        )
    return layers.Input(shape)


class _Chain:
    """Integer layers, as they grow; `pools` and `flat` wait for the layer that takes them in."""

    def __init__(self, made: list[layers.Layer], shape: tuple[int, ...]) -> None:
        self.layers, self.shape = made, shape
        self.pools: list[Pooling] = []
        self.flat = len(shape) == 1

    def add(self, module: nn.Module) -> None:
        if isinstance(module, block.Dropout):
            return
        if isinstance(module, block.Flatten):
            self.flat = True
        elif isinstance(module, block.AvgPool):
            self._need_images()
            self.pools.append(module.pooling)
        elif isinstance(module, block.Delay):
            self._delay(module)
        elif isinstance(module, block.Block):
            self._add_synapse(module.synapse, module.norm, _quantizer(module), _neuron(module))
            self._add_recurrence(module)
            if module.delay is not None:
                self._delay(module.delay)
        elif isinstance(module, block.Affine):
            self._add_synapse(module.synapse, None, _quantizer(module), None)
        else:
            raise SpikestrapError("integer layers have no counterpart of it")

    def _add_synapse(
        self,
        synapse: nn.Module,
        norm: Norm | None,
        quantizer: Quantizer,
        neuron: layers.Neuron | None,
    ) -> None:
        if isinstance(synapse, Pooling):
            self._need_images()
            window, stride, padding = synapse.sizes
            channels, value = self.shape[0], _whole(quantizer.pooling(synapse))
            kernel = np.full((channels, 1, *window), value)
            self._convolve(kernel, None, stride, padding, 1, channels, neuron)
            return
        if not isinstance(synapse, Synapse):
            raise SpikestrapError("only the first block may be an Input")
        weight, bias = quantizer.weights(synapse, norm)
        layer = synapse.layer
        if isinstance(layer, nn.Conv2d):
            size = (layer.stride, _padding(layer), layer.dilation)
            self._convolve(_whole(weight), bias, *size, layer.groups, neuron)
        else:
            self._connect(_whole(weight), bias, neuron)

    def _add_recurrence(self, module: block.Block) -> None:
        """From the layer just added to itself, if the block has it."""
        if not isinstance(module, block.Recurrent):
            return
        driven, dense = module.unit.neuron, self.layers[-1]
        assert isinstance(driven, SelfDriven)
        assert isinstance(dense, layers.Dense)
        assert isinstance(driven.synapse, Synapse)
        assert driven.quantizer is not None
        weight, _ = driven.quantizer.weights(driven.synapse, None)
        self.layers[-1] = replace(dense, recurrent=_whole(weight))

    def _delay(self, delay: block.Delay) -> None:
        """Delays the last layer's spikes; a pooling in between does not mind which is first."""
        last, steps = self.layers[-1], delay.steps.cpu().numpy()
        if last.neuron is None and not isinstance(last, layers.Input):
            raise SpikestrapError("expected spikes to delay, got a readout")
        channels = self.shape[0]
        # What was flattened has its channels one after the other.
        rows = steps.reshape(channels, -1) if steps.size % channels == 0 else steps[None]
        if len(rows) != channels or (rows.shape[1] > 1 and not (self.flat and len(self.shape) > 1)):
            raise SpikestrapError(f"{steps.size} delays behind {channels} channels")
        if np.any(rows != rows[:, :1]):
            raise SpikestrapError("a chip delays a channel of images by one number of steps")
        before = 0 if last.delay is None else last.delay
        self.layers[-1] = replace(last, delay=before + rows[:, 0])

    def _need_images(self) -> None:
        if self.flat:
            raise SpikestrapError(f"expected images (C, H, W) before it, got {self.shape}")

    def _convolve(
        self,
        weight: np.ndarray,
        bias: Tensor | None,
        stride: object,
        padding: object,
        dilation: object,
        groups: int,
        neuron: layers.Neuron | None,
    ) -> None:
        self._need_images()
        sizes = (_pair(stride), _pair(padding), _pair(dilation))
        for pool in reversed(self.pools):
            weight, *sizes = _behind_pool(weight, *sizes, pool, self.shape)  # type: ignore[assignment]
        self.pools = []
        made = layers.Conv(
            (weight.shape[0], 1, 1), neuron, None, weight, _bias(bias), *sizes, groups
        )
        shape = made.output_shape(self.shape)
        self.layers.append(replace(made, shape=shape))
        self.shape = shape

    def _connect(
        self, weight: np.ndarray, bias: Tensor | None, neuron: layers.Neuron | None
    ) -> None:
        if self.pools:
            weight = _spread_over_pools(weight, self.pools, self.shape)
            self.pools = []
        if len(self.shape) == 3:
            if not self.flat:
                raise SpikestrapError(f"expected a Flatten before it, got images {self.shape}")
            self.layers.append(layers.Flatten((math.prod(self.shape),)))
        self.shape = (weight.shape[0],)
        self.flat = True
        self.layers.append(layers.Dense(self.shape, neuron, None, weight, _bias(bias)))


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    """Of each axis, the same on both of its sides."""
    before, behind = zeros_around(layer)
    if before != behind:
        raise SpikestrapError(
            'a chip pads both sides alike; got padding="same" with '
            f"kernel_size={layer.kernel_size}, dilation={layer.dilation}, which does not"
        )
    return before


def _behind_pool(
    weight: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    pool: Pooling,
    shape: tuple[int, ...],
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int], tuple[int, int]]:
    """The convolution that does what summing windows and then this convolution do."""
    window, step, edge = pool.sizes
    for axis in (0, 1):
        left_over = (shape[1 + axis] + 2 * edge[axis] - window[axis]) % step[axis]
        if padding[axis] and left_over:
            raise SpikestrapError(
                "a pooling without a neuron becomes part of the convolution behind it, which is "
                "possible with padding only if its windows tile the image: "
                f"window {window}, stride {step}, image {shape[1:]}"
            )
    kernel = weight.shape[2:]
    size = [(k - 1) * d * s + w for k, d, s, w in zip(kernel, dilation, step, window, strict=True)]
    wide = np.zeros((*weight.shape[:2], *size), weight.dtype)
    for i, j in np.ndindex(*kernel):
        y, x = i * dilation[0] * step[0], j * dilation[1] * step[1]
        wide[:, :, y : y + window[0], x : x + window[1]] += weight[:, :, i, j, None, None]
    return (
        wide,
        (stride[0] * step[0], stride[1] * step[1]),
        (padding[0] * step[0] + edge[0], padding[1] * step[1] + edge[1]),
        (1, 1),
    )


def _spread_over_pools(
    weight: np.ndarray, pools: list[Pooling], shape: tuple[int, ...]
) -> np.ndarray:
    """Dense weights of pooled images, for the images: the gradient of the sums, exactly."""
    image = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        pooled = image
        for pool in pools:
            pooled = pool.sums(pooled)
        if pooled.numel() != weight.shape[1]:
            raise SpikestrapError(
                f"expected {weight.shape[1]} inputs, the pooled images have {pooled.numel()}"
            )
        rows = [
            torch.autograd.grad(pooled, image, torch.from_numpy(row).view_as(pooled).double(),
                                retain_graph=True)[0]
            for row in weight
        ]  # fmt: skip
    return np.rint(torch.stack(rows).flatten(1).numpy()).astype(np.int64)


def _neuron(module: block.Block) -> layers.Neuron:
    neuron = module.unit.neuron
    if isinstance(neuron, SelfDriven):
        neuron = neuron.neuron
    assert isinstance(neuron, ChipCUBA)
    current_decay, voltage_decay, threshold, v_init = neuron.values()
    return layers.Neuron(
        _whole(threshold),
        _whole(current_decay, 4096),
        _whole(voltage_decay, 4096),
        _whole(v_init, 4096),
        neuron.firing.reset,
    )


def _quantizer(module: block.Block | block.Affine) -> Quantizer:
    if module.quantizer is None:
        raise SpikestrapError(
            "expected a block at the chip's precision, whose weights it can hold; got one of floats"
        )
    return module.quantizer


def _whole(value: Tensor, scale: int = 64) -> np.ndarray:
    numbers = value.detach().cpu().double().numpy() * scale
    if not np.isfinite(numbers).all():
        raise SpikestrapError("expected finite weights and parameters, got NaN or inf")
    return np.rint(numbers).astype(np.int64)


def _bias(bias: Tensor | None) -> np.ndarray | None:
    return None if bias is None else _whole(bias)


def _pair(value: object) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else tuple(value)  # type: ignore
    return int(first), int(second)


def _pipelined(net: TorchNetwork) -> bool:
    shifts = [module.delay_shift for module in net.blocks if isinstance(module, block.Block)]
    if any(shifts) and not all(shifts):
        raise SpikestrapError(
            "delay_shift must be the same in all blocks: on a chip every layer is one step late"
        )
    return any(shifts)
