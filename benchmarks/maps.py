"""What a curve for each feature map is worth, in a CNN under batch norm.

python benchmarks/maps.py --data DIR [--time-steps 1 2 4 8] [--v-init 0.5] [--seeds 0 1 2]

Four convolutions of 12, 24, 48 and 48 features, IF with reset by subtraction, trained for four
epochs on the first 8,000 training images of MNIST and measured on 10,000 others; the test images
are not looked at. One curve a layer or one a channel; all epochs as an ANN, or the last one as an
SNN with the gradient through the curves; and direct training. v-init: in units of the threshold,
which is that of the recipes with batch norm. Prints a Markdown table, mean and range of the seeds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ablation import print_head, row, trained
from choose import parts

import spikestrap as ss
from spikestrap import block
from spikestrap.train import Arrays, Options, Splits, mnist
from spikestrap.train.models import batch_norm_neuron

MEASURED, EPOCHS = 10_000, 4
OPTIONS = Options(
    epochs=EPOCHS,
    batch_size=128,
    learning_rate=2e-3,
    sample_period=1,
    num_sample_iter=3,
    snn_gradient="rate",
    validate_every=EPOCHS,
)
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "one curve a layer": ("layer", {}),
    "one a channel": ("channel", {}),
    "one a layer, the last epoch as an SNN": ("layer", {"snn_epochs": 1}),
    "one a channel, the last epoch as an SNN": ("channel", {"snn_epochs": 1}),
    "direct training": ("layer", {"snn_epochs": EPOCHS, "snn_gradient": "surrogate"}),
}


def network(per: str, time_steps: int, v_init: float) -> ss.Network:
    """For images (N, 1, 28, 28)."""
    neuron = batch_norm_neuron(time_steps)
    start = v_init * neuron["threshold"]
    neuron = {**neuron, "v_init": start, "sampler": {"per": per}}
    conv = block.cuba.Conv
    return ss.Network(
        conv(neuron, 1, 12, 3, padding=1),
        block.AvgPool(2),
        conv(neuron, 12, 24, 3, padding=1),
        block.AvgPool(2),
        conv(neuron, 24, 48, 3, padding=1),
        conv(neuron, 48, 48, 3, padding=1),
        block.Flatten(),
        block.cuba.Affine(neuron, 48 * 49, 10),
        time_steps=time_steps,
    )


def run(
    change: str, time_steps: int, v_init: float, seed: int, splits: Splits, rest: Arrays
) -> dict[str, Any]:
    """One training, measured on the rest."""
    per, options = CHANGES[change]
    torch.manual_seed(seed)
    net = network(per, time_steps, v_init)
    return trained(net, splits, replace(OPTIONS, **options), seed, rest)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--time-steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--v-init", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    arguments = parser.parse_args()
    splits, rest = parts(mnist(arguments.data), arguments.images)
    rest = Arrays(rest.x[:MEASURED], rest.y[:MEASURED])
    print_head()
    for change in arguments.changes:
        for time_steps in arguments.time_steps:
            results = [
                run(change, time_steps, arguments.v_init, seed, splits, rest)
                for seed in arguments.seeds
            ]
            print(row(change, time_steps, results), flush=True)


if __name__ == "__main__":
    main()
