"""examples/lava_dl_mnist.py on a small part of the digits: it learns, and its export agrees."""

import argparse
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from spikestrap.train import Arrays, digits

EXAMPLE = Path(__file__).parents[2] / "examples" / "lava_dl_mnist.py"


@pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")
def test_trains_and_exports(tmp_path, capsys):
    script = runpy.run_path(str(EXAMPLE))
    data = digits()
    data = replace(data, test=Arrays(data.test.x[:200], data.test.y[:200]))
    options = argparse.Namespace(seed=0, out=tmp_path, batch_size=32, epochs=4, sample_period=1)
    script["train"].__globals__["HIDDEN"] = 128
    accuracy, agree = script["train"](data, options)
    assert accuracy > 0.8
    assert agree == 1
    printed = capsys.readouterr().out
    assert printed.count("SNN Testing: loss") == 4
    assert "same predictions: 1.00000" in printed
    assert {p.name for p in tmp_path.iterdir()} == {
        "accuracy.txt",
        "loss.txt",
        "network.net",
        "network.pt",
    }
