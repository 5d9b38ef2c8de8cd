"""What the examples of the gallery share: their options, the data, saving a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import spikestrap as ss
from spikestrap.train import Arrays, Splits, digits, evaluate


def options(description: str | None) -> argparse.Namespace:
    """The options of every example: --out DIR and --quick."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="default: here")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only sees that it runs")
    return parser.parse_args()


def data(quick: bool) -> Splits:
    """Scikit-learn's handwritten digits; of the training part a corner if `quick`."""
    splits = digits()
    if not quick:
        return splits
    # More than the ten batches of 64 that are sampled, or nothing would train.
    few = Arrays(splits.train.x[:768], splits.train.y[:768])
    return Splits(splits.name, splits.classes, few, splits.validation, splits.test)


def mlp(blocks: Any, neuron: dict[str, Any], time_steps: int, **options: Any) -> ss.Network:
    """64-128-128-10, its neurons those of `blocks`, such as `ss.block.cuba`.

    The scale turns torch's initial weights into He's: with less, layers may start silent.
    """
    dense = {"weight_norm": True, "weight_scale": 6**0.5, **options}
    return ss.Network(
        ss.block.Flatten(),
        blocks.Dense(neuron, 64, 128, **dense),
        blocks.Dense(neuron, 128, 128, **dense),
        blocks.Affine(neuron, 128, 10),
        time_steps=time_steps,
    )


def accuracies(net: ss.Network, splits: Splits) -> tuple[float, float]:
    """Of the test part in percent: as an SNN, as an ANN."""
    return evaluate(net, splits.test, ss.Mode.SNN), evaluate(net, splits.test, ss.Mode.ANN)


def figure(columns: int, rows: int = 1, **shared: Any) -> tuple[Figure, Any]:
    """A figure and its axes, (rows, columns) of them."""
    made = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **shared)


def save(made: Figure, folder: Path, script: str) -> None:
    """Writes the picture under the script's name, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(script).stem}.png"
    made.savefig(path, dpi=110)
    print(path)


torch.manual_seed(0)
