"""The performance page is made of what the benchmarks say. That they run is tested beside."""

import re
import sys

from benchmarks import report
from tests.processes import run

RESULT = {
    "over_copy_limit": 1.5,
    "spread": {"over_copy_limit": [1.25, 1.75]},
    "milliseconds": {"spikestrap": {"median": 12.3456, "min": 11.0, "max": 14.0}},
    "shape": [16, 8],
    "activity": {"first": 0.25},
    "rounds": 3,
    "quick": False,
    "allocator": "keeps memory",
    "threads": {"torch": 2, "numba": 1},
    "versions": {"torch": "2.13.0", "spikestrap": "0.1.0"},
}
ABOUT = {"processor": "an abacus"}


def test_page():
    text = report.page({"neuron": RESULT, "step": {**RESULT, "versions": {"norse": "1"}}}, ABOUT)
    assert text.startswith("# Performance\n")
    for line in (
        "| processor | an abacus |",
        "| threads | torch 2, numba 1 |",
        "| versions | torch 2.13.0, spikestrap 0.1.0, norse 1 |",
        "OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=1 python benchmarks/report.py",
        "3 rounds; shape (16, 8), activity (first 0.25).",
        "| over copy limit | 1.5 | 1.25 | 1.75 |",
        "| spikestrap | 12.35 | 11 | 14 |",
    ):
        assert line in text.splitlines()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0].startswith("A LIF layer alone")
    assert titles[1].startswith("One training step")
    assert r"2\*\*19 neurons" in text  # the asterisks of a docstring are none of Markdown's
    assert "Tiny" not in text
    assert "Tiny sizes" in report.page({"neuron": {**RESULT, "quick": True}}, ABOUT)


def test_a_benchmark_with_an_option():
    text = report.page({report.DEFAULT_ALLOCATOR: {**RESULT, "allocator": "default"}}, ABOUT)
    (title,) = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert title.startswith("A LIF layer alone")
    assert title.endswith("; torch's memory as it comes")
    assert "`benchmarks/neuron.py --default-allocator`. The same where" in text


def test_the_machine_is_named():
    about = report.machine()
    assert re.search(r", \d+ cores$", about["processor"])
    assert "Python 3." in about["system"]


def test_part_of_the_page_does_not_replace_it():
    for part in (["--quick"], ["--only", "neuron"]):
        command = [sys.executable, report.HERE / "report.py", *part]
        done = run(*command)
        assert done.returncode == 2
        assert "need --out" in done.stderr
