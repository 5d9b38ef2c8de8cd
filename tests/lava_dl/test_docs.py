"""What docs/from-lava-dl.md shows runs, in one scope from top to bottom."""

from pathlib import Path

import pytest
from tests.test_docs import blocks

DOCS = Path(__file__).parents[2] / "docs" / "from-lava-dl.md"


@pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")
def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = [code for _, code in blocks(DOCS, ("python",))]
    assert len(code) == 6
    scope = {"__name__": "example"}
    exec("\n".join(code), scope)
    assert len(scope["stats"].training.loss_log) == 2
    assert (tmp_path / "network.net").exists()
    groups = scope["optimizer"].param_groups
    assert [len(group["params"]) for group in groups] == [2, 4]
    weight = scope["net"].blocks[1].synapse.weight
    g = scope["checkpoint"]["blocks.1.synapse.weight_g"].flatten()
    assert weight.norm(dim=1).tolist() == pytest.approx(g.tolist(), rel=1e-5)
