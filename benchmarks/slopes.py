"""What the choice of the curve's backward slope, and its rounding, do to the accuracy.

python benchmarks/slopes.py              the choices
python benchmarks/slopes.py --neurons    the default slope for neurons whose rates rise elsewhere

Trains the digits-mlp network with each choice, for three T and three seeds, and prints the
accuracy on the validation part (mean and range) as a Markdown table. With `--neurons` a smaller
network of other neurons, behind batch norm, by bootstrap and by direct training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accuracy import spread

import spikestrap as ss
from spikestrap import block
from spikestrap.train import RECIPES, Arrays, Options
from spikestrap.train.data import digits
from spikestrap.train.evaluate import evaluate
from spikestrap.train.loop import fit

CHOICES: dict[str, dict[str, object]] = {
    'slope="smooth" (default)': {},
    'slope="fit"': {"slope": "fit"},
    'slope="rescaled"': {"slope": "rescaled"},
    "rounding=False": {"rounding": False},
    'per="channel"': {"per": "channel"},
}
TIME_STEPS, SEEDS, EPOCHS = (2, 4, 16), (0, 1, 2), 60

# Neurons by what a row is called; every one without another v_init starts at 0.
NEURONS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    f"IF, threshold {threshold}, v_init = threshold / 2": (
        block.integrate_fire,
        {"threshold": threshold, "reset": "subtract", "v_init": threshold / 2},
        (1, 4, 16),
    )
    for threshold in (1.0, 0.3, 0.1)
}
NEURONS |= {
    "IF, v_init = threshold": (block.integrate_fire, {"threshold": 1.0, "v_init": 1.0}, (1, 4)),
    "the same, no reset": (
        block.integrate_fire,
        {"threshold": 1.0, "v_init": 1.0, "reset": "none"},
        (4,),
    ),
    "LIF, leak 0.5": (block.lif, {"threshold": 1.0, "voltage_decay": 0.5}, (4, 16)),
    "PLIF": (block.plif, {"threshold": 1.0}, (4, 16)),
}
SMALL, SHORT = 64, 12


def small(family: Any, neuron: dict[str, Any], time_steps: int) -> ss.Network:
    """64-64-64-10, batch norm before each neuron."""
    normed = {**neuron, "norm": "batch"}
    return ss.Network(
        block.Flatten(),
        family.Dense(normed, 64, SMALL),
        family.Dense(normed, SMALL, SMALL),
        family.Affine(neuron, SMALL, 10),
        time_steps=time_steps,
    )


def network(time_steps: int, sampler: dict[str, object]) -> ss.Network:
    """The network of the recipe digits-mlp, without its Input block."""
    neuron = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5, "sampler": sampler}
    return ss.Network(
        block.Flatten(),
        block.cuba.Dense(neuron, 64, 256, weight_norm=True),
        block.cuba.Dense(neuron, 256, 256, weight_norm=True),
        block.cuba.Affine(neuron, 256, 10),
        time_steps=time_steps,
    )


def trained(
    make: Callable[[], ss.Network], options: Options
) -> Iterator[tuple[ss.Network, Arrays]]:
    """The network after training with each seed, and its validation part."""
    for seed in SEEDS:
        torch.manual_seed(seed)
        net, splits = make(), digits(seed)
        fit(net, splits, options, seed)
        yield net, splits.validation


def choices() -> None:
    options = replace(RECIPES["digits-mlp"].options, epochs=EPOCHS)
    print("| choice | T | SNN % | ANN % |\n|---|---|---|---|", flush=True)
    for name, sampler in CHOICES.items():
        for time_steps in TIME_STEPS:
            snn, ann = [], []
            for net, part in trained(partial(network, time_steps, sampler), options):
                snn.append(evaluate(net, part, ss.Mode.SNN))
                ann.append(evaluate(net, part, ss.Mode.ANN))
            print(f"| {name} | {time_steps} | {spread(snn, 2)} | {spread(ann, 2)} |", flush=True)


def neurons() -> None:
    bootstrap = replace(
        RECIPES["digits-mlp"].options, epochs=SHORT, sample_period=1, num_sample_iter=3
    )
    ways = (bootstrap, replace(bootstrap, snn_epochs=SHORT))
    print("| neuron | T | bootstrap, SNN % | direct, SNN % |\n|---|---|---|---|", flush=True)
    for name, (family, neuron, steps) in NEURONS.items():
        for time_steps in steps:
            make = partial(small, family, neuron, time_steps)
            cells = [
                spread([evaluate(*end, ss.Mode.SNN) for end in trained(make, options)], 1)
                for options in ways
            ]
            print(f"| {name} | {time_steps} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--neurons", action="store_true")
    neurons() if parser.parse_args().neurons else choices()
