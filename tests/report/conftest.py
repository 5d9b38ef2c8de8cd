import json
import shutil

import pytest

from spikestrap.report.gather import gather
from spikestrap.report.page import render
from spikestrap.train import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a short training on digits; for reading only."""
    folder = tmp_path_factory.mktemp("report") / "run"
    train("digits-mlp", epochs=2, time_steps=4, out=folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="session")
def report(trained):
    return gather(trained)


@pytest.fixture(scope="session")
def page(report):
    return render(report)


@pytest.fixture
def edit():
    """Changes a JSON file in place: edit(path, function of its object)."""

    def change(path, function):
        value = json.loads(path.read_text())
        function(value)
        path.write_text(json.dumps(value))

    return change
