"""What an option of a recipe is worth, without a look at the test images.

python benchmarks/choose.py mnist-cnn-t2 --data DIR --epochs 16 --change batch_size=32 --seeds 0 1

Trains the recipe on the first 15,000 training images, as it is and with each change, and prints the
accuracies on the other training images and the validation part (mean and range): several times as
many images as validation has, so that smaller differences show. No epoch is chosen. A change is the
name of one of `spikestrap.train.Options` and its value, or several of them with blanks between.
"""

from __future__ import annotations

import argparse
import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ablation import print_head, row, trained

from spikestrap.train import Arrays, Options, Recipe, Splits, recipe
from spikestrap.train.data import load


def parts(splits: Splits, images: int) -> tuple[Splits, Arrays]:
    """The first images to train on, and the rest, of training and validation, to measure on."""
    train, validation = splits.train, splits.validation
    rest = Arrays(
        torch.cat([train.x[images:], validation.x]), torch.cat([train.y[images:], validation.y])
    )
    first = Arrays(train.x[:images], train.y[:images])
    return replace(splits, train=first), rest


def run(
    made_by: Recipe, options: Options, time_steps: int, seed: int, splits: Splits, rest: Arrays
) -> dict[str, Any]:
    """One training, measured on the rest."""
    torch.manual_seed(seed)
    net = made_by.network(time_steps)
    # The last epoch is always validated; where no other is, it is what training keeps.
    return trained(net, splits, replace(options, validate_every=options.epochs), seed, rest)


def changed(text: str) -> dict[str, Any]:
    """Options by name and value, as in "batch_size=32 learning_rate=0.01"."""
    options = {}
    for part in text.split():
        name, _, value = part.partition("=")
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--time-steps", type=int, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--change", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    made_by = recipe(arguments.recipe)
    time_steps = arguments.time_steps or made_by.time_steps
    splits, rest = parts(load(made_by.data, arguments.data, 0, time_steps), arguments.images)
    # As many epochs first: a change of them, or of those as an SNN, is of these. And all changes
    # before any training: a wrong one fails at once.
    own = made_by.options.for_epochs(arguments.epochs)
    choices = {"the recipe": own}
    choices |= {change: replace(own, **changed(change)) for change in arguments.change}
    print_head()
    for change, options in choices.items():
        results = [
            run(made_by, options, time_steps, seed, splits, rest) for seed in arguments.seeds
        ]
        print(row(change, time_steps, results), flush=True)


if __name__ == "__main__":
    main()
