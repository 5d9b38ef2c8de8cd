import os

import pytest
from tests.shared import CIFAR10, MNIST


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """A task of a Slurm job, in a folder where an earlier one left what Lightning would load."""
    where = {"JOB_ID": "7", "JOB_NAME": "job", "JOB_NODELIST": "localhost", "NTASKS": "4"}
    for name, value in {**where, "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "hpc_ckpt_1.ckpt").write_text("of another training")
    monkeypatch.chdir(folder)
    return folder


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
