"""The examples of docs/foreign-libraries.md run."""

import re
from pathlib import Path

import pytest
import torch

TEXT = (Path(__file__).parents[2] / "docs" / "foreign-libraries.md").read_text()
BLOCKS = re.findall(r"\n#+ ([^\n]+)\n|```python\n(.*?)```", TEXT, re.DOTALL)


def examples():
    title = "first"
    for heading, block in BLOCKS:
        title = heading or title
        if block:
            yield pytest.param(block, id=title)


@pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")
@pytest.mark.parametrize("block", list(examples()))
def test_runs(block):
    scope = {"__name__": "example"}
    exec(block, scope)
    assert scope["logits"].shape[1] == 10
    assert torch.isfinite(scope["logits"]).all()
