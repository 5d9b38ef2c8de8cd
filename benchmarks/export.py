"""Whether a run's .net file classifies every test image as the trained network does.

python benchmarks/export.py RUN --data DIR --json

The network runs in SNN mode in floating point, the file in the integers of the chip.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spikestrap as ss
from spikestrap import fixed
from spikestrap.train import export_run, load_run
from spikestrap.train.data import load

BATCH = 250


def compare(path: Path, data: Path | None) -> dict[str, Any]:
    """Exports a run, runs both on the test images, and counts what differs."""
    run = load_run(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.net"
        export_run(path, "net", file)
        chip = ss.load(file)
    assert isinstance(chip, fixed.Network)
    test = load(run.recipe.data, data or run.data, run.seed).test
    net = run.net.eval()
    with torch.no_grad():
        expected = torch.cat([net(x, ss.Mode.SNN) for x in test.x.split(BATCH)]).numpy()
    found, classes = chip.run(test.x).logits, test.y.numpy()
    predicted, by_file = expected.argmax(1), found.argmax(1)
    return {
        "recipe": run.recipe.name,
        "time_steps": run.time_steps,
        "samples": len(test),
        "differing_predictions": int(np.count_nonzero(predicted != by_file)),
        "largest_difference_of_logits": float(np.abs(expected - found).max()),
        "network_accuracy": 100 * float((predicted == classes).mean()),
        "file_accuracy": 100 * float((by_file == classes).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="directory that `spikestrap train` wrote")
    parser.add_argument("--data", type=Path, help="folder of the data set")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    result = compare(options.run, options.data)
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
