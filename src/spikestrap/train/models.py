"""The networks of the recipes: each function gives a builder, from T and precision to network.

T is that of static inputs, None for those that run over time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from .. import block
from ..network import Network

Builder = Callable[[int | None, str], Network]

# No leak, reset by subtraction and a membrane that starts half way up: the firing rate is then the
# mean input rounded to the nearest k/T, the least error that T time steps allow.
NEURON: dict[str, Any] = {
    "threshold": 1.0,
    "current_decay": 1.0,
    "voltage_decay": 0.0,
    "reset": "subtract",
    "v_init": 0.5,
}

# What Loihi has: reset to zero and a membrane that starts at 0. The parameters are lava-dl's.
CHIP_NEURON: dict[str, Any] = {
    "threshold": 1.25,
    "current_decay": 1.0,
    "voltage_decay": 0.03,
    "reset": "zero",
}


def batch_norm_neuron(time_steps: int | None) -> dict[str, Any]:
    """`NEURON` with the threshold for inputs under batch norm, whose variance is 1; norm included.

    The one whose T + 1 rates come closest to ReLU of a normal input: a lower one cuts off more of
    the inputs, a higher one leaves wider steps between the rates. The formula is within 3 % of
    the least mean square error, as the tests compute it from IF neurons.

    >>> [round(batch_norm_neuron(T)["threshold"], 2) for T in (1, 2, 4, 8, 16)]
    [1.2, 1.65, 2.1, 2.55, 3.0]
    """
    threshold = 2.0 if time_steps is None else 1.2 + 0.45 * math.log2(time_steps)
    return {**NEURON, "threshold": threshold, "v_init": threshold / 2, "norm": "batch"}


def mlp(
    pixels: int,
    hidden: int,
    neuron: dict[str, Any] = NEURON,
    input_weight: float | None = 1.0,
    weight_scale: float = 1.0,
    bias: bool = False,
) -> Builder:
    """Two dense layers and a readout.

    An Input block turns pixels into spikes, with that weight to start from; None: the first dense
    layer takes the pixels themselves, as a current that is constant over time.
    """
    synapse: dict[str, Any] = {"weight_norm": True, "weight_scale": weight_scale, "bias": bias}

    def build(time_steps: int | None, precision: str) -> Network:
        encoder = []
        if input_weight is not None:
            encoder = [block.cuba.Input(neuron, weight=input_weight, bias=0.0)]
        return Network(
            block.Flatten(),
            *encoder,
            block.cuba.Dense(neuron, pixels, hidden, **synapse),
            block.cuba.Dense(neuron, hidden, hidden, **synapse),
            block.cuba.Affine(neuron, hidden, 10),
            time_steps=time_steps,
            precision=precision,
        )

    return build


def cnn(side: int, channels: int, hidden: int) -> Builder:
    """Two convolutions and a dense layer; each convolution is followed by average pooling."""
    # Weight norm keeps inputs small and so even over time; batch norm would scale up how they
    # vary from step to step, which a curve of their mean cannot see.
    # The scale turns torch's initial weights into He's; with less the layers start silent.
    synapse: dict[str, Any] = {"weight_norm": True, "bias": True, "weight_scale": 6**0.5}
    flat = 2 * channels * (side // 4) ** 2

    def build(time_steps: int | None, precision: str) -> Network:
        return Network(
            block.cuba.Conv(NEURON, 1, channels, 3, padding=1, **synapse),
            block.AvgPool(2),
            block.cuba.Conv(NEURON, channels, 2 * channels, 3, padding=1, **synapse),
            block.AvgPool(2),
            block.Flatten(),
            block.cuba.Dense(NEURON, flat, hidden, **synapse),
            block.cuba.Affine(NEURON, hidden, 10),
            time_steps=time_steps,
            precision=precision,
        )

    return build


def vgg(
    shape: tuple[int, int, int],
    stages: Sequence[Sequence[int]],
    hidden: int | None = None,
    norm: str = "mean_only",
    readout_weight: float = 1.0,
    first_kernel: int = 3,
) -> Builder:
    """Stages of 3 x 3 convolutions of those widths, average pooling by 2 after each; a readout.

    After Simonyan and Zisserman (ICLR 2015). norm: "batch", or "mean_only" with weight norm
    (Salimans and Kingma, 2016), see `cnn`: it leaves the gap smaller, but many layers of it
    start silent. shape: (C, H, W) of an image; hidden: width of a dense layer before the readout,
    None for none; readout_weight: of what the readout is given, where pooling is what it reads,
    on the scale of the membrane: a spike counts as the threshold; first_kernel: odd side of the
    first convolution's kernel, which on an image of few channels costs little.
    """
    weight_norm: dict[str, Any] = {"weight_norm": True, "weight_scale": 6**0.5}

    def build(time_steps: int | None, precision: str) -> Network:
        if norm == "batch":
            neuron, synapse = batch_norm_neuron(time_steps), {}
        else:
            neuron, synapse = {**NEURON, "norm": norm}, weight_norm
        channels, height, width = shape
        blocks: list[nn.Module] = []
        kernel = first_kernel
        for place, stage in enumerate(stages):
            for features in stage:
                sizes = (channels, features, kernel)
                blocks += [block.cuba.Conv(neuron, *sizes, padding=kernel // 2, **synapse)]
                channels, kernel = features, 3
            is_read = hidden is None and place == len(stages) - 1
            weight = readout_weight * neuron["threshold"] if is_read else 1.0
            blocks += [block.AvgPool(2, weight=weight)]
            height, width = height // 2, width // 2
        flat = channels * height * width
        blocks += [block.Flatten()]
        if hidden is not None:
            blocks += [block.cuba.Dense(neuron, flat, hidden, **synapse)]
            flat = hidden
        blocks += [block.cuba.Affine(neuron, flat, 10)]
        return Network(*blocks, time_steps=time_steps, precision=precision)

    return build


def resnet(shape: tuple[int, int, int], widths: Sequence[int], depth: int = 2) -> Builder:
    """A convolution, `depth` residual blocks of each width, average pooling, a readout.

    ResNet-18 for small images (He et al., CVPR 2016): widths 64, 128, 256, 512, where each but
    the first halves height and width. shape: (C, H, W) of an image.
    """

    def build(time_steps: int | None, precision: str) -> Network:
        neuron = batch_norm_neuron(time_steps)
        channels, height, _ = shape
        blocks: list[nn.Module] = [block.cuba.Conv(neuron, channels, widths[0], 3, padding=1)]
        channels = widths[0]
        for stage, features in enumerate(widths):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks += [block.Residual(block.cuba.Conv, neuron, channels, features, stride)]
                channels = features
        blocks += [block.AvgPool(height >> (len(widths) - 1)), block.Flatten()]
        blocks += [block.cuba.Affine(neuron, channels, 10)]
        return Network(*blocks, time_steps=time_steps, precision=precision)

    return build
