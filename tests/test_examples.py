"""The examples run as they stand, for few epochs, and learn."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from tests import processes

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command, **more):
    done = processes.run(*command, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def percent(pattern, text):
    return float(re.search(pattern, text).group(1))


@pytest.mark.parametrize(("name", "epochs"), [("plain_loop", 8), ("own_network", 3)])
def test_a_loop_of_ones_own(name, epochs):
    out = run(sys.executable, EXAMPLES / f"{name}.py", str(epochs))
    snn, ann = (percent(rf"{mode} test accuracy: (\S+) %", out) for mode in ("SNN", "ANN"))
    assert snn > 80
    assert abs(snn - ann) < 5


@pytest.mark.parametrize("devices", [1, 2])
def test_lightning(devices):
    out = run(sys.executable, EXAMPLES / "lightning_trainer.py", "8", str(devices))
    assert percent(r"snn_accuracy: (\S+)", out) > 80
    assert 0 < percent(r"event_rate: (\S+)", out) < 1
    assert out.count("snn_accuracy") == 1


def test_two_processes(tmp_path):
    command = tmp_path / "spikestrap"
    command.write_text(f"#!{sys.executable}\nfrom spikestrap.cli import main\nmain()\n")
    command.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    out = run(shutil.which("sh"), EXAMPLES / "two_processes.sh", "8", tmp_path / "run", PATH=path)
    assert percent(r"SNN test accuracy *. *(\S+) %", out.split("digits-mlp")[-1]) > 80
    assert out.count("SNN test accuracy") == 2
