"""Trains a recipe with several seeds and prints a row of a Markdown table for each T.

python benchmarks/accuracy.py mnist-mlp --data DIR --time-steps 16 4 --seeds 0 1 2

Further options go to `spikestrap train`: --precision bf16-mixed has the trainings in half
precision; accuracies are measured in float32 after each of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COLUMNS = ("recipe", "T", "epochs", "SNN %", "ANN %", "gap, points", "event rate", "seconds")


def train(recipe: str, time_steps: int, seed: int, extra: list[str]) -> dict[str, Any]:
    """One run of the command line, as a user would start it; its JSON."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", "from spikestrap.cli import main; main()", "train"]
        command += [recipe, "--time-steps", str(time_steps), "--seed", str(seed), "--json"]
        command += ["--out", str(Path(out) / "run"), *extra]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def spread(values: list[float], digits: int) -> str:
    """Mean and range, as in 99.10 (99.05 to 99.14)."""
    mean, low, high = statistics.mean(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def row(results: list[dict[str, Any]]) -> str:
    """The runs of one recipe and T as a row of the table."""
    first = results[0]
    cells = [first["recipe"], str(first["time_steps"]), str(first["epochs"])]
    cells += [spread([r["snn_accuracy"] for r in results], 2)]
    cells += [spread([r["ann_accuracy"] for r in results], 2)]
    cells += [spread([r["gap"] for r in results], 2)]
    cells += [spread([r["event_rate"] for r in results], 3)]
    cells += [spread([r["seconds"]["total"] for r in results], 0)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--time-steps", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options, extra = parser.parse_known_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS), flush=True)
    for time_steps in options.time_steps:
        results = [train(options.recipe, time_steps, seed, extra) for seed in options.seeds]
        print(row(results), flush=True)


if __name__ == "__main__":
    main()
