"""What docs/nir.md shows runs, in one scope from top to bottom."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[3] / "docs" / "nir.md"


@pytest.mark.filterwarnings("ignore")  # of the libraries shown
def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 6
    exec("\n".join(blocks), {})
    assert {p.name for p in tmp_path.iterdir()} == {"net.nir", "images.nir", "soft.nir"}
