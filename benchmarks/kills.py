"""Kills a training of the digits at random moments, resumes it, and compares with an unbroken run.

python benchmarks/kills.py --kills 20

Each training is killed (SIGKILL) at a moment drawn evenly from its epochs: once it told of so many,
and a part of an epoch's time later. Resumed, it must end with the same checkpoint, weights and
history, to the bit; only times differ. Exits 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

TRAIN = [sys.executable, "-c", "from spikestrap.cli import main; main()", "train"]


def train(*arguments: str) -> None:
    """A training to its end; what it says is shown where it fails."""
    done = subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def killed(epochs: float, seconds: float, *arguments: str) -> bool:
    """Kills a training after so many epochs of so many seconds; whether it was still running."""
    running = subprocess.Popen(
        [*TRAIN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    for _ in range(int(epochs)):
        running.stderr.readline()
    time.sleep((epochs - int(epochs)) * seconds)
    was_running = running.poll() is None
    running.kill()
    running.communicate()
    return was_running


def differing(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two nested states are not the same; times aside."""
    if isinstance(one, list) and isinstance(other, list):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield where
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            if not str(key).startswith("seconds"):
                yield from differing(one[key], other[key], f"{where}/{key}")
    elif one != other:
        yield where


def state(run: Path) -> dict[str, Any]:
    """All that a finished run has learned and written down."""
    return {
        "last": torch.load(run / "last.ckpt", weights_only=True),
        "best": torch.load(run / "best.pt", weights_only=True),
        "history": json.loads((run / "history.json").read_text()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    arguments = ["--epochs", str(options.epochs), "--seed", "3"]
    moments, differ = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        train(*arguments, "--out", str(whole))
        expected = state(whole)
        seconds = [epoch["seconds"] for epoch in expected["history"]["epochs"]]
        for number in range(options.kills):
            run, moment = Path(folder) / str(number), options.epochs * moments.random()
            cut_off = killed(moment, statistics.median(seconds), *arguments, "--out", str(run))
            begun = (run / "config.json").exists()  # without it there is nothing to resume
            again = ["--resume", str(run)] if begun else [*arguments, "--out", str(run)]
            train(*again)
            found = list(differing(expected, state(run)))
            differ += bool(found)
            when = f"killed after {moment:.2f} epochs" if cut_off else "finished before the kill"
            print(f"{when}: {', '.join(found) or 'the same'}", flush=True)
    print(f"{options.kills} kills, {differ} end differently")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
