import json

from spikestrap.train.compare_report import COLUMNS, rows, write_comparison

METHOD = {
    "epochs": 3, "seconds": 12.345, "seconds_to_direct": None, "snn_accuracy": 97.5,
    "ann_accuracy": 97.25, "gap": -0.25, "event_rate": 0.125,
    "over_time": [{"epoch": 1, "seconds": 4.0, "snn_accuracy": 90.0, "ann_accuracy": 91.0}],
    "over_time_steps": {1: 80.0, 4: 97.5},
}  # fmt: skip
ANN = {
    **METHOD, "snn_accuracy": None, "gap": None, "event_rate": None, "over_time_steps": {},
    "over_time": [{"epoch": 1, "seconds": 4.0, "snn_accuracy": None, "ann_accuracy": 91.0}],
}  # fmt: skip
RESULT = {
    "recipe": "digits-mlp", "time_steps": 4, "seed": 7, "budget": None, "out": "here",
    "methods": {"ann": ANN, "bootstrap": METHOD},
}  # fmt: skip


def test_a_row_a_method():
    assert len(COLUMNS) == 8
    assert rows(RESULT) == [
        ("ann", "3", "12.3", "-", "-", "97.25", "-", "-"),
        ("bootstrap", "3", "12.3", "-", "97.50", "97.25", "-0.25", "0.125"),
    ]


def test_the_page_holds_both_tables_and_the_plot(tmp_path):
    write_comparison(tmp_path, RESULT)
    text = (tmp_path / "compare.md").read_text()
    assert "# digits-mlp, T = 4" in text
    assert "Seed 7, the same epochs." in text
    assert "| bootstrap | 3 | 12.3 | - | 97.50 | 97.25 | -0.25 | 0.125 |" in text
    assert "| SNN % | T = 1 | T = 4 |" in text
    assert "| bootstrap | 80.00 | 97.50 |" in text
    assert "](compare.png)" in text
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "compare.json").read_text())["seed"] == 7


def test_a_budget_is_named(tmp_path):
    write_comparison(tmp_path, {**RESULT, "budget": 60.0})
    assert "60 seconds of training each" in (tmp_path / "compare.md").read_text()
