"""Ready-made trainings: a network, its data, and how to train it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .. import block
from ..errors import SpikestrapError
from ..network import Network
from .augment import RandomAffine
from .options import Options, whole_number

MAX_TIME_STEPS = 1024  # beyond it memory, not accuracy, is what grows


@dataclass(frozen=True)
class Recipe:
    """A network for a data set, and how to train it.

    Attributes:
        name: what the command line calls it.
        summary: one line on it.
        data: the data set, ``"digits"`` or ``"mnist"``.
        time_steps: the default number of time steps, T.
        options: how to train it.
        build: makes the network, given T and the precision; it takes pixels in [0, 1].
        precision: the default precision, see `spikestrap.Network`.
    """

    name: str
    summary: str
    data: str
    time_steps: int
    options: Options
    build: Callable[[int, str], Network]
    precision: str = "float"

    def network(self, time_steps: int | None = None, precision: str | None = None) -> Network:
        """A new network that takes images (N, C, H, W) with pixels in [0, 1].

        Args:
            time_steps: 1 to 1024; None for the recipe's own.
            precision: "float" or "loihi"; None for the recipe's own.

        Raises:
            SpikestrapError: ``time_steps`` is out of range, or the precision is unknown or
                not possible for the network.
        """
        steps = self.time_steps if time_steps is None else time_steps
        precision = self.precision if precision is None else precision
        return self.build(whole_number("time_steps", steps, 1, MAX_TIME_STEPS), precision)


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        SpikestrapError: there is none of that name; the message suggests near ones.

    >>> recipe("mnist-mpl")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: recipe: expected one of digits-mlp, digits-cnn, mnist-mlp, \
mnist-cnn, digits-mlp-loihi, mnist-mlp-loihi, got 'mnist-mpl'; did you mean 'mnist-mlp'?
    """
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SpikestrapError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}{hint}")


# No leak, reset by subtraction and a membrane that starts half way up: the firing rate is then the
# mean input rounded to the nearest k/T, the least error that T time steps allow.
_NEURON: dict[str, Any] = {
    "threshold": 1.0,
    "current_decay": 1.0,
    "voltage_decay": 0.0,
    "reset": "subtract",
    "v_init": 0.5,
}


# What Loihi has: reset to zero and a membrane that starts at 0. The parameters are lava-dl's.
_CHIP_NEURON: dict[str, Any] = {
    "threshold": 1.25,
    "current_decay": 1.0,
    "voltage_decay": 0.03,
    "reset": "zero",
}


def _mlp(
    pixels: int,
    hidden: int,
    neuron: dict[str, Any] = _NEURON,
    input_weight: float = 1.0,
    weight_scale: float = 1.0,
) -> Callable[[int, str], Network]:
    synapse: dict[str, Any] = {"weight_norm": True, "weight_scale": weight_scale}

    def build(time_steps: int, precision: str) -> Network:
        return Network(
            block.Flatten(),
            block.cuba.Input(neuron, weight=input_weight, bias=0.0),
            block.cuba.Dense(neuron, pixels, hidden, **synapse),
            block.cuba.Dense(neuron, hidden, hidden, **synapse),
            block.cuba.Affine(neuron, hidden, 10),
            time_steps=time_steps,
            precision=precision,
        )

    return build


def _cnn(side: int, channels: int, hidden: int) -> Callable[[int, str], Network]:
    """Two convolutions and a dense layer; each convolution is followed by average pooling."""
    # Weight norm keeps inputs small and so even over time; batch norm would scale up how they
    # vary from step to step, which a curve of their mean cannot see.
    # The scale turns torch's initial weights into He's; with less the layers start silent.
    synapse: dict[str, Any] = {"weight_norm": True, "bias": True, "weight_scale": 6**0.5}
    flat = 2 * channels * (side // 4) ** 2

    def build(time_steps: int, precision: str) -> Network:
        return Network(
            block.cuba.Conv(_NEURON, 1, channels, 3, padding=1, **synapse),
            block.AvgPool(2),
            block.cuba.Conv(_NEURON, channels, 2 * channels, 3, padding=1, **synapse),
            block.AvgPool(2),
            block.Flatten(),
            block.cuba.Dense(_NEURON, flat, hidden, **synapse),
            block.cuba.Affine(_NEURON, hidden, 10),
            time_steps=time_steps,
            precision=precision,
        )

    return build


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
    augment=RandomAffine(degrees=10, scale=0.1, shear=5, shift=2),
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
            augment=RandomAffine(degrees=15, scale=0.15, shear=10, shift=1.0),
            validate_every=5,
        ),
        build=_mlp(64, 256),
    ),
    Recipe(
        "digits-cnn",
        "two convolutions and two dense layers on scikit-learn's 8x8 digits",
        data="digits",
        time_steps=4,
        options=replace(
            _DIGITS,
            epochs=40,
            augment=RandomAffine(degrees=8, scale=0.08, shear=4, shift=0.5),
            validate_every=2,
        ),
        build=_cnn(side=8, channels=16, hidden=64),
    ),
    Recipe(
        "mnist-mlp",
        "784-512-512-10 on MNIST",
        data="mnist",
        time_steps=16,
        options=replace(_MNIST, epochs=45, batch_size=256, sample_period=3, validate_every=3),
        build=_mlp(784, 512),
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
        build=_cnn(side=28, channels=16, hidden=128),
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
        build=_mlp(pixels, hidden, _CHIP_NEURON, input_weight=2.0, weight_scale=6**0.5),
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
