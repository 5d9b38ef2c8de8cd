import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_mnist():
    """MNIST's four files, in the folder of data sets that lies beside the project."""
    shared = Path(os.environ.get("SPIKESTRAP_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    folder = shared / "data" / "mnist"
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{folder} is missing")
    return folder.resolve()
