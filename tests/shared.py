"""The folder of data that is not part of the project: MNIST, CIFAR-10, golden files."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SPIKESTRAP_SHARED", Path(__file__).parents[2] / "shared"))
GOLDEN = SHARED / "golden/lava-dl"
MNIST = SHARED / "data/mnist"
CIFAR10 = SHARED / "data/cifar10-jpeg"

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir() and not os.environ.get("CI"), reason=f"{GOLDEN} is missing"
)
