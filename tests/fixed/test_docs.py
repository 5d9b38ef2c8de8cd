"""What docs/hardware.md shows runs, in one scope from top to bottom."""

import re
from pathlib import Path

from tests.test_docs import blocks

DOCS = Path(__file__).parents[2] / "docs" / "hardware.md"


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = [code for _, code in blocks(DOCS, ("python",))]
    assert len(code) == 4
    exec("\n".join(code), {})
    names = {"network.net", "network.onnx", "recurrent.net"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_the_tests_it_names_are_there():
    names = re.findall(r"`((?:tests|benchmarks)/[^`]+)`", DOCS.read_text())
    assert len(names) == 5
    assert all((DOCS.parents[1] / name).is_file() for name in names)
