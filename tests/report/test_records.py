import json
import re

import pytest

import spikestrap as ss
from spikestrap.report.records import read_records, read_speed_up
from spikestrap.train import RECIPES
from spikestrap.train.history import FittedCurve
from spikestrap.train.run import load_run


def test_a_training_is_read_as_it_was_written(trained):
    records = read_records(trained)
    result = json.loads((trained / "result.json").read_text())
    history = json.loads((trained / "history.json").read_text())
    curves = json.loads((trained / "curves.json").read_text())["curves"]
    assert records.result.snn_accuracy == result["snn_accuracy"]
    assert records.result.gap == pytest.approx(result["gap"])
    assert records.result.seconds == result["seconds"]
    assert [epoch.loss for epoch in records.epochs] == [e["loss"] for e in history["epochs"]]
    assert [epoch.seconds_by_mode for epoch in records.epochs] == [
        e["seconds_by_mode"] for e in history["epochs"]
    ]
    assert records.best_epoch == history["best_epoch"]
    assert records.curves == [FittedCurve(**curve) for curve in curves]
    assert len(records.curves) == 3  # one sampling, three units


def test_a_run_of_an_early_version(run, edit):
    (run / "curves.json").unlink()
    edit(run / "history.json", lambda h: [e.pop("seconds_by_mode") for e in h["epochs"]])
    records = read_records(run)
    assert records.curves == []
    assert [epoch.seconds_by_mode for epoch in records.epochs] == [{}, {}]


def compared(**changes):
    """Direct training was at its best after 7 s, bootstrap as good after 2 s."""
    methods = {
        "direct": {"epochs": 2, "seconds_to_direct": 7.0},
        "bootstrap": {"epochs": 2, "seconds_to_direct": 2.0},
    }
    return {
        "recipe": "digits-mlp", "time_steps": 4, "batch_size": 64,
        "learning_rate": RECIPES["digits-mlp"].options.learning_rate, "precision": "float",
        "training_precision": "32-true", "seed": 0, "methods": methods, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["run", "compare-digits-mlp-T4-s0"])
def test_the_speed_up_of_a_comparison(run, folder):
    loaded = load_run(run)
    assert read_speed_up(loaded) is None
    (run.parent / folder).mkdir(exist_ok=True)
    file = run.parent / folder / "compare.json"
    file.write_text(json.dumps(compared()))
    assert read_speed_up(loaded) == 3.5
    earlier = compared()  # when none had a learning rate of its own
    del earlier["learning_rate"]
    file.write_text(json.dumps(earlier))
    assert read_speed_up(loaded) == 3.5
    methods = compared()["methods"]
    methods["bootstrap"]["seconds_to_direct"] = None
    file.write_text(json.dumps(compared(methods=methods)))
    assert read_speed_up(loaded) is None
    file.write_text(json.dumps(compared(methods=None)))
    with pytest.raises(ss.SpikestrapError, match="methods: expected an object, got null"):
        read_speed_up(loaded)


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "digits-cnn"},
        {"time_steps": 8},
        {"batch_size": 32},
        {"learning_rate": 0.1},
        {"precision": "loihi"},
        {"training_precision": "bf16-mixed"},
        {"seed": 1},
        {"methods": {"direct": {"epochs": 2, "seconds_to_direct": 7.0}}},
        {"methods": {"ann": {}, "bootstrap": {"epochs": 2, "seconds_to_direct": None}}},
        {"methods": {**compared()["methods"], "bootstrap": {"epochs": 3, "seconds_to_direct": 1}}},
    ],
)
def test_no_speed_up_of_another_training_or_of_one_method(run, changes):
    (run / "compare.json").write_text(json.dumps(compared(**changes)))
    assert read_speed_up(load_run(run)) is None
    beside = run.parent / "compare-digits-mlp-T4-s0"
    beside.mkdir()
    (beside / "compare.json").write_text(json.dumps(compared()))
    assert read_speed_up(load_run(run)) == 3.5


def test_a_network_without_curves(run, edit):
    edit(run / "result.json", lambda result: result.update(ann_accuracy=None))
    assert read_records(run).result.gap is None


def put(key, value):
    return lambda entry: entry.update({key: value})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("result", put("snn_accuracy", 101), "snn_accuracy: expected a number from 0 to 100, got"),
        ("result", put("snn_accuracy", float("nan")), "from 0 to 100, got NaN"),
        ("result", put("event_rate", "high"), 'event_rate: expected a number .*, got "high"'),
        ("result", put("event_rate", True), "event_rate: expected a number .*, got true"),
        ("result", put("seconds", 3), "seconds: expected an object of numbers, got 3"),
        ("result", put("seconds", {"ann": 1}), "seconds: expected a total among them, got {"),
        ("result", put("seconds", {"total": -1}), "seconds, total: expected a number from 0"),
        ("history", put("epochs", {}), "epochs: expected a list of objects, got {}"),
        ("history", put("epochs", []), r"epochs: expected at least one, got \[\]"),
        ("history", put("epochs", [1]), "epochs: expected a list of objects"),
        ("history", put("epochs", "x" * 99), r"got \"x+ \.\.\.$"),
        ("history", put("best_epoch", 2), "best_epoch: expected a number from -1 to 1, got 2"),
        ("history", lambda h: h["epochs"][1].pop("loss"), r"epochs\[1\]: loss: .*, got null"),
        ("history", lambda h: put("steps", [])(h["epochs"][0]), "steps: expected an object"),
        ("curves", lambda h: put("values", [0.0])(h["curves"][0]), "values: expected at least 2"),
        (
            "curves",
            lambda h: put("values", [0, 2])(h["curves"][0]),
            "values: .* from 0 to 1, got 2",
        ),
        ("curves", lambda h: put("width", -1)(h["curves"][2]), r"curves\[2\]: width: .*, got -1"),
        ("curves", lambda h: put("unit", 1)(h["curves"][0]), "unit: expected a text, got 1"),
    ],
)
def test_damage_is_named(run, edit, name, change, message):
    path = run / f"{name}.json"
    edit(path, change)
    with pytest.raises(ss.SpikestrapError, match=message) as caught:
        read_records(run)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["result.json", "history.json"])
def test_a_missing_file(run, name):
    (run / name).unlink()
    with pytest.raises(ss.SpikestrapError, match=f"{re.escape(name)}: cannot be read: No such"):
        read_records(run)
