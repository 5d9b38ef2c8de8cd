"""What the choice of the curve's backward slope, and its rounding, do to the accuracy.

python benchmarks/slopes.py

Trains the digits-mlp network with each choice, for three T and three seeds, and prints the
accuracy on the validation part (mean and range) as a Markdown table.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from accuracy import spread

import spikestrap as ss
from spikestrap.train import RECIPES
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


def network(time_steps: int, sampler: dict[str, object]) -> ss.Network:
    """The network of the recipe digits-mlp, without its Input block."""
    neuron = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5, "sampler": sampler}
    return ss.Network(
        ss.block.Flatten(),
        ss.block.cuba.Dense(neuron, 64, 256, weight_norm=True),
        ss.block.cuba.Dense(neuron, 256, 256, weight_norm=True),
        ss.block.cuba.Affine(neuron, 256, 10),
        time_steps=time_steps,
    )


def main() -> None:
    print("| choice | T | SNN % | ANN % |\n|---|---|---|---|", flush=True)
    for name, sampler in CHOICES.items():
        for time_steps in TIME_STEPS:
            snn, ann = [], []
            for seed in SEEDS:
                torch.manual_seed(seed)
                net = network(time_steps, sampler)
                splits = digits(seed)
                options = replace(RECIPES["digits-mlp"].options, epochs=EPOCHS)
                fit(net, splits, options, seed)
                snn.append(evaluate(net, splits.validation, ss.Mode.SNN))
                ann.append(evaluate(net, splits.validation, ss.Mode.ANN))
            print(f"| {name} | {time_steps} | {spread(snn, 2)} | {spread(ann, 2)} |", flush=True)


if __name__ == "__main__":
    main()
