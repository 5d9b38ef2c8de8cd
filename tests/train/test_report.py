import pytest
import torch

import spikestrap as ss
from spikestrap.train.loop import Epoch, History
from spikestrap.train.recipes import recipe
from spikestrap.train.report import write_report

RESULT = {
    "recipe": "digits-mlp",
    "time_steps": 4,
    "epochs": 2,
    "seed": 0,
    "snn_accuracy": 97.126,
    "ann_accuracy": 97.5,
    "gap": 0.374,
    "event_rate": 0.1234,
    "seconds": {"ann": 1.0, "total": 2.0},
    "parameters": 12345,
}
HISTORY = History(
    [Epoch(0, 2.0, 0.1, {}, 1.0), Epoch(1, 1.0, 0.1, {}, 1.0, 90.0, 91.0)], 1, {"total": 2.0}
)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def net():
    return recipe("digits-mlp").network(4)


def test_writes_a_page_and_its_figures(net, tmp_path):
    x = torch.rand(6, 1, 8, 8)
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT)
    write_report(tmp_path, net, HISTORY, RESULT)
    page = (tmp_path / "report.md").read_text()
    for text in ("digits-mlp, T = 4", "97.13 %", "0.37 points", "0.123 spikes", "2 (best: 2)"):
        assert text in page
    for name in ("accuracy.png", "curves.png"):
        assert f"({name})" in page
        assert (tmp_path / name).read_bytes().startswith(PNG)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_run_without_curves(net, tmp_path):
    write_report(tmp_path, net, HISTORY, {**RESULT, "ann_accuracy": None, "gap": None})
    assert "| gap | - |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
