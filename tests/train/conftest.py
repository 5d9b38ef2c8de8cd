import os

import pytest
from tests.shared import CIFAR10, MNIST


@pytest.fixture(scope="session")
def shared_mnist():
    """MNIST's four files, in the folder of data sets that lies beside the project."""
    if not MNIST.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{MNIST} is missing")
    return MNIST.resolve()


@pytest.fixture(scope="session")
def shared_cifar10():
    """CIFAR-10 as JPEG images, in the folder of data sets that lies beside the project."""
    if not CIFAR10.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{CIFAR10} is missing")
    return CIFAR10.resolve()
