"""What each part of the recipe mnist-mlp-t4 is worth: trains it without, and prints a table.

python benchmarks/ablation.py --data DIR --time-steps 1 2 4 8 16 --seeds 0 1 2

Each row changes one thing. The ReLU row is the same network, trained under the same schedule with
ReLU for neurons; the direct row trains through time from the first step to the last. Accuracies
are those of the test part (mean and range), at the epoch that training keeps; `--part validation`
shows those of the validation part instead, to choose by.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accuracy import spread

from spikestrap.train import Arrays, Options, Splits, fit, mnist, recipe
from spikestrap.train.compare import numbers, options_for, relu_twin
from spikestrap.train.models import NEURON, mlp
from spikestrap.train.recipes import LOW_LATENCY

RECIPE, PIXELS, HIDDEN = "mnist-mlp-t4", 784, 512
UNITS = 2
COLUMNS = ("change", "T", "epochs", "SNN %", "ANN %", "gap, points", "seconds")

# What differs from the recipe: in the network (arguments of `mlp`), the neuron, the training.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "the recipe": {},
    "ReLU twin": {},
    "direct training": {},
    "affine augmentation only": {"options": {"augment": recipe("mnist-mlp").options.augment}},
    "spiking input": {"network": {"input_weight": 1.0}},
    "torch's initial weights": {"network": {"weight_scale": 1.0}},
    "no biases": {"network": {"bias": False}},
    "v_init = 0": {"neuron": {"v_init": 0.0}},
    "reset to zero": {"neuron": {"reset": "zero"}},
    "leak 0.03": {"neuron": {"voltage_decay": 0.03}},
    "learned thresholds": {"neuron": {"learnable": ("threshold",)}},
    "no rounding": {"neuron": {"sampler": {"rounding": False}}},
    'slope="fit"': {"neuron": {"sampler": {"slope": "fit"}}},
    "curves per channel": {"neuron": {"sampler": {"per": "channel"}}},
    "sampling every 10 epochs": {"options": {"sample_period": 10}},
    "the last epoch as an SNN": {"options": {"snn_epochs": 1}},
    "the same, through curves": {"options": {"snn_epochs": 1, "snn_gradient": "rate"}},
    "crossover from the input": {},
}


def run(
    change: str, time_steps: int, epochs: int | None, seed: int, splits: Splits, part: Arrays
) -> dict[str, Any]:
    """One training with one change, measured on a part."""
    parts = CHANGES[change]
    own = recipe(RECIPE).options
    own = replace(own, epochs=epochs or own.epochs, **parts.get("options", {}))
    method = {"direct training": "direct", "crossover from the input": "hybrid"}.get(change)
    options = own if method is None else options_for(method, own, UNITS)
    arguments = {**LOW_LATENCY, **parts.get("network", {})}
    neuron = {**NEURON, **parts.get("neuron", {})}
    torch.manual_seed(seed)
    net: torch.nn.Module = mlp(PIXELS, HIDDEN, neuron, **arguments)(time_steps, "float")
    if change == "ReLU twin":
        net = relu_twin(net)
    return trained(net, splits, options, seed, part)


def trained(
    net: torch.nn.Module, splits: Splits, options: Options, seed: int, part: Arrays
) -> dict[str, Any]:
    """Trains the network, and measures it on a part."""
    start = time.perf_counter()
    fit(net, splits, options, seed)
    seconds = time.perf_counter() - start
    return {**numbers(net, part), "epochs": options.epochs, "seconds": seconds}


def print_head() -> None:
    """Of the table of `row`s."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS), flush=True)


def row(change: str, time_steps: int, results: list[dict[str, Any]]) -> str:
    """The seeds of one change and T as a row of the table."""

    def cell(key: str, digits: int) -> str:
        values = [result[key] for result in results]
        return "-" if None in values else spread(values, digits)

    cells = [change, str(time_steps), str(results[0]["epochs"])]
    cells += [cell("snn_accuracy", 2), cell("ann_accuracy", 2), cell("gap", 2), cell("seconds", 0)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--time-steps", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    splits = mnist(options.data)
    print_head()
    for change in options.changes:
        for time_steps in options.time_steps:
            results = [
                run(change, time_steps, options.epochs, seed, splits, getattr(splits, options.part))
                for seed in options.seeds
            ]
            print(row(change, time_steps, results), flush=True)


if __name__ == "__main__":
    main()
