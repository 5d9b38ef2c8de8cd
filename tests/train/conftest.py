import os

import pytest
from tests.shared import MNIST


@pytest.fixture(scope="session")
def shared_mnist():
    """MNIST's four files, in the folder of data sets that lies beside the project."""
    if not MNIST.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{MNIST} is missing")
    return MNIST.resolve()
