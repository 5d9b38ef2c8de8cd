"""Ready-made trainings: a network, its data, and how to train it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Any

from ..counts import whole_number
from ..errors import SpikestrapError
from ..network import Network
from .augment import RandomCrop, RandomWarp
from .data import TEMPORAL
from .models import CHIP_NEURON, Builder, cnn, mlp, resnet, vgg
from .options import Options

MAX_TIME_STEPS = 1024  # beyond it memory, not accuracy, is what grows


@dataclass(frozen=True)
class Recipe:
    """A network for a data set, and how to train it.

    Attributes:
        name: what the command line calls it.
        summary: one line on it.
        data: the data set, ``"digits"``, ``"mnist"``, ``"cifar10"`` or ``"nmnist"``.
        time_steps: the default number of time steps, T.
        options: how to train it.
        build: makes the network, given T and the precision; it takes pixels in [0, 1]. T is None
            where the samples themselves run over time.
        precision: the default precision, see `spikestrap.Network`.
    """

    name: str
    summary: str
    data: str
    time_steps: int
    options: Options
    build: Builder
    precision: str = "float"

    def network(self, time_steps: int | None = None, precision: str | None = None) -> Network:
        """A new network that takes images (N, C, H, W), or frames of events (T, N, C, H, W).

        Args:
            time_steps: 1 to 1024; None for the recipe's own.
            precision: "float" or "loihi"; None for the recipe's own.

        Raises:
            SpikestrapError: ``time_steps`` is out of range, or the precision is unknown or
                not possible for the network.
        """
        steps = self.time_steps if time_steps is None else time_steps
        precision = self.precision if precision is None else precision
        steps = whole_number("time_steps", steps, 1, MAX_TIME_STEPS)
        return self.build(None if self.temporal else steps, precision)

    @property
    def temporal(self) -> bool:
        """Whether samples run over time: T frames each, instead of an image held for T steps."""
        return self.data in TEMPORAL


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        SpikestrapError: there is none of that name; the message suggests near ones.

    >>> recipe("mnist-mpl")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: recipe: expected one of digits-mlp, digits-cnn, mnist-mlp, \
mnist-cnn, mnist-mlp-t4, mnist-cnn-t2, cifar10-cnn, cifar10-resnet18, cifar10-vgg16, \
nmnist, digits-mlp-loihi, mnist-mlp-loihi, got 'mnist-mpl'; did you mean 'mnist-mlp'?
    """
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SpikestrapError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}{hint}")


_DIGITS = Options(
    batch_size=64,
    learning_rate=4e-3,
    weight_decay=1e-2,
    sample_period=5,
    num_sample_iter=5,
)
_MNIST = Options(
    learning_rate=3e-3,
    weight_decay=1e-2,
    augment=RandomWarp(degrees=10, scale=0.1, shear=5, shift=2),
)
# Arguments of `mlp` for few time steps: pixels as currents, and He's initial weights, for with
# torch's own the layers start nearly silent at T = 1 and 2.
LOW_LATENCY: dict[str, Any] = {"input_weight": None, "bias": True, "weight_scale": 6**0.5}
# After Simard et al. (ICDAR 2003): what helps digits most.
_ELASTIC = RandomWarp(degrees=10, scale=0.1, shear=5, shift=1, elastic=1.0)
_CIFAR = Options(
    batch_size=128,
    learning_rate=3e-3,
    weight_decay=5e-2,
    label_smoothing=0.1,
    augment=RandomCrop(padding=4, mirror=True),
    sample_period=2,
)
_CIFAR_GPU = replace(
    _CIFAR,
    epochs=200,
    batch_size=256,
    augment=RandomCrop(padding=4, mirror=True, cutout=16),
    validate_every=5,
)
_RECIPES = (
    Recipe(
        "digits-mlp",
        "64-256-256-10 on scikit-learn's 8x8 digits; nothing to download",
        data="digits",
        time_steps=8,
        options=replace(
            _DIGITS,
            epochs=120,
            augment=RandomWarp(degrees=15, scale=0.15, shear=10, shift=1.0),
            validate_every=5,
        ),
        build=mlp(64, 256),
    ),
    Recipe(
        "digits-cnn",
        "two convolutions and two dense layers on scikit-learn's 8x8 digits",
        data="digits",
        time_steps=4,
        options=replace(
            _DIGITS,
            epochs=40,
            augment=RandomWarp(degrees=8, scale=0.08, shear=4, shift=0.5),
            validate_every=2,
        ),
        build=cnn(side=8, channels=16, hidden=64),
    ),
    Recipe(
        "mnist-mlp",
        "784-512-512-10 on MNIST",
        data="mnist",
        time_steps=16,
        options=replace(_MNIST, epochs=45, batch_size=256, sample_period=3, validate_every=3),
        build=mlp(784, 512),
    ),
    Recipe(
        "mnist-cnn",
        "two convolutions and two dense layers on MNIST",
        data="mnist",
        time_steps=4,
        options=replace(
            _MNIST,
            epochs=24,
            batch_size=128,
            sample_period=2,
            # What the curves cannot see, inputs uneven over time, a last epoch as an SNN can.
            snn_epochs=1,
            validate_every=2,
        ),
        build=cnn(side=28, channels=16, hidden=128),
    ),
    Recipe(
        "mnist-mlp-t4",
        "784-512-512-10 on MNIST for few time steps: pixels as currents, elastic augmentation",
        data="mnist",
        time_steps=4,
        options=replace(
            _MNIST,
            epochs=100,
            batch_size=256,
            augment=_ELASTIC,
            sample_period=3,
            num_sample_iter=3,  # each sees every neuron of a layer with 256 images: enough
            validate_every=5,
        ),
        build=mlp(784, 512, **LOW_LATENCY),
    ),
    Recipe(
        "mnist-cnn-t2",
        "three convolutions and two dense layers on MNIST, for two time steps",
        data="mnist",
        time_steps=2,
        options=replace(
            _MNIST,
            epochs=30,
            batch_size=128,
            label_smoothing=0.1,
            augment=_ELASTIC,
            sample_period=2,
            # At two steps an epoch as an SNN takes but twice as long, and gains more.
            snn_epochs=8,
            validate_every=1,
        ),
        build=vgg((1, 28, 28), ((32,), (64, 64)), hidden=256, first_kernel=5),
    ),
    Recipe(
        "cifar10-cnn",
        "a small VGG on CIFAR-10, for a CPU",
        data="cifar10",
        time_steps=4,
        # The last epochs as an SNN take twice as long: they close the gap that curves leave.
        options=replace(_CIFAR, epochs=10, snn_epochs=2, snn_gradient="rate", validate_every=2),
        # Wide towards the readout, for there few rates cost most.
        build=vgg((3, 32, 32), ((32,), (96,), (256,)), norm="batch", readout_weight=2.0),
    ),
    Recipe(
        "cifar10-resnet18",
        "ResNet-18 on CIFAR-10, for a GPU",
        data="cifar10",
        time_steps=4,
        options=replace(_CIFAR_GPU, snn_epochs=10),
        build=resnet((3, 32, 32), (64, 128, 256, 512)),
    ),
    Recipe(
        "cifar10-vgg16",
        "VGG-16 on CIFAR-10, for a GPU",
        data="cifar10",
        time_steps=4,
        options=replace(_CIFAR_GPU, snn_epochs=10),
        build=vgg(
            (3, 32, 32),
            ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
            norm="batch",
        ),
    ),
    Recipe(
        "nmnist",
        "two convolutions and two dense layers on N-MNIST, an event camera's recordings",
        data="nmnist",
        time_steps=8,
        options=Options(
            epochs=10,
            batch_size=128,
            learning_rate=3e-3,
            weight_decay=1e-2,
            sample_period=2,
            # Events come unevenly over time, which curves cannot see: some epochs as an SNN can.
            snn_epochs=2,
        ),
        build=vgg((2, 34, 34), ((16,), (32,)), hidden=128),
    ),
)


def _on_chip(name: str, pixels: int, hidden: int) -> Recipe:
    """A recipe of that name with the chip's neuron and precision instead of its own.

    A membrane that starts at 0 needs stronger inputs to fire within few steps.
    """
    own = next(entry for entry in _RECIPES if entry.name == name)
    return replace(
        own,
        name=f"{name}-loihi",
        summary=f"{name} as Loihi computes it; to be exported as a .net file",
        build=mlp(pixels, hidden, CHIP_NEURON, input_weight=2.0, weight_scale=6**0.5),
        precision="loihi",
    )


RECIPES: dict[str, Recipe] = {
    entry.name: entry
    for entry in (
        *_RECIPES,
        _on_chip("digits-mlp", 64, 256),
        _on_chip("mnist-mlp", 784, 512),
    )
}
