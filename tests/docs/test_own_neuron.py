"""What the page on own neurons shows runs, and does what it says."""

import re
from pathlib import Path

import pytest

from spikestrap.kernel import Explanation

PAGE = Path(__file__).parents[2] / "docs" / "own-neuron.md"


@pytest.fixture(scope="module")
def shown():
    """The page's names after all its code, and what that printed."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    printed = []
    scope = {"print": lambda *values: printed.extend(values), "__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), scope)
    return scope, printed, blocks


def test_neuron_is_short(shown):
    _, _, blocks = shown
    lines = blocks[0].partition("class ")[2].splitlines()
    assert len(lines) < 25


def test_what_is_printed_is_what_is_said(shown):
    _, (compiled, reference, accuracy), _ = shown
    assert compiled.backend == "compiled"
    assert reference == Explanation("reference", "mean")
    assert str(reference) in PAGE.read_text()
    assert accuracy.startswith("SNN accuracy 9")


def test_learns_the_digits(shown):
    scope, _, _ = shown
    assert scope["accuracy"] >= 95
