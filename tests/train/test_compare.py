import json
import sys
from dataclasses import replace

import pytest
import torch
from tests.processes import run

import spikestrap as ss
from spikestrap.train import Hardware
from spikestrap.train import compare as comparison_of
from spikestrap.train.compare import (
    METHODS,
    _add_seconds_to_direct,
    _pace,
    _seconds,
    _within,
    options_for,
    relu_twin,
)
from spikestrap.train.data import Arrays, digits
from spikestrap.train.options import Options
from spikestrap.train.recipes import recipe

OWN = Options(epochs=20, batch_size=10, num_sample_iter=2, sample_period=4, snn_epochs=1)
PACE = {"snn": 8.0, "sample": 10.0, "fit": 3.0, "ann": 1.0}
MODULE = sys.modules[options_for.__module__]


@pytest.fixture
def fits(monkeypatch):
    """The trainings, as (network, modes, hardware), where only T = 1 and 2 are evaluated."""
    found = []
    own = MODULE.fit

    def noted(net, splits, options, *more, on_progress=lambda progress: None, hardware=None):
        modes = set()
        found.append((net, modes, hardware))

        def note(progress):
            modes.add(progress.mode.split(",")[0])
            modes.update(["crossover"] * ("below" in progress.mode))
            on_progress(progress)

        on_progress, given = (more[1], more[:1]) if len(more) > 1 else (on_progress, more)
        return own(net, splits, options, *given, on_progress=note, hardware=hardware)

    monkeypatch.setattr(MODULE, "fit", noted)
    monkeypatch.setattr(MODULE, "TIME_STEPS", (1, 2))
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    told = []
    out = tmp_path_factory.mktemp("compare") / "out"
    result = comparison_of(
        "digits-mlp", time_steps=2, epochs=4, out=out, on_progress=lambda *step: told.append(step)
    )
    return result, told, out


class TestCompare:
    def test_every_method_trains_and_none_is_another(self, result):
        methods = result[0]["methods"]
        assert tuple(methods) == METHODS
        accuracies = {
            (method["snn_accuracy"], method["ann_accuracy"]) for method in methods.values()
        }
        assert len(accuracies) == 4
        for name, method in methods.items():
            assert method["epochs"] == 4
            kind = "ann_accuracy" if name == "ann" else "snn_accuracy"
            assert 30 < method[kind] <= 100
            assert [point["epoch"] for point in method["over_time"]] == list(range(1, 5))
            seconds = [point["seconds"] for point in method["over_time"]]
            assert seconds == sorted(seconds)
            assert seconds[-1] == pytest.approx(method["seconds"])

    def test_what_a_method_has_not_is_none(self, result):
        methods = result[0]["methods"]
        for key in ("snn_accuracy", "gap", "event_rate"):
            assert methods["ann"][key] is None
        assert methods["direct"]["ann_accuracy"] is None
        assert methods["bootstrap"]["gap"] == pytest.approx(
            methods["bootstrap"]["ann_accuracy"] - methods["bootstrap"]["snn_accuracy"]
        )
        assert methods["direct"]["seconds_to_direct"] <= methods["direct"]["seconds"]

    def test_what_is_told_of_the_ann_is_its_own(self, result):
        told = [step.finished for method, step in result[1] if method == "ann" and step.finished]
        assert [epoch.snn_accuracy for epoch in told] == 4 * [None]
        over_time = result[0]["methods"]["ann"]["over_time"]
        assert [epoch.ann_accuracy for epoch in told] == [p["ann_accuracy"] for p in over_time]

    def test_over_time_steps(self, result):
        methods = result[0]["methods"]
        assert methods["ann"]["over_time_steps"] == {}
        for name in METHODS[1:]:
            accuracies = methods[name]["over_time_steps"]
            assert list(accuracies) == [1, 2, 4, 8, 16, 32]
            assert accuracies[2] == methods[name]["snn_accuracy"]

    def test_the_modes_are_the_methods(self, result):
        modes = {name: [p.mode for method, p in result[1] if method == name] for name in METHODS}
        assert set(modes["direct"]) == {"SNN"}
        assert set(modes["bootstrap"]) == {"SAMPLE", "FIT", "ANN"}
        assert modes["hybrid"][-1] == "SNN"
        assert any("SNN below unit 2" in mode for mode in modes["hybrid"])

    def test_files(self, result):
        found, _, out = result
        assert {path.name for path in out.iterdir()} == {
            "compare.json", "compare.md", "compare.png",
        }  # fmt: skip
        stored = json.loads((out / "compare.json").read_text())
        assert (
            stored["methods"]["direct"]["snn_accuracy"]
            == (found["methods"]["direct"]["snn_accuracy"])
        )
        assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("budget", [0, -1.0, float("inf"), float("nan")])
    def test_a_budget_out_of_range(self, budget, tmp_path):
        with pytest.raises(ss.SpikestrapError, match="budget: expected a finite number of seconds"):
            comparison_of(budget=budget, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_either_epochs_or_a_budget(self, tmp_path):
        with pytest.raises(ss.SpikestrapError, match=r"epochs or budget, got both: 3 and 1\.0"):
            comparison_of(epochs=3, budget=1.0, out=tmp_path / "out")

    def test_a_budget_is_for_one_process(self, tmp_path):
        with pytest.raises(ss.SpikestrapError, match="pace is that of one process, got 2"):
            comparison_of(budget=1.0, out=tmp_path / "out", hardware=Hardware(devices=2))

    def test_all_that_a_method_runs_has_run_on_a_copy_before(self, fits, tmp_path):
        comparison_of("digits-mlp", time_steps=2, epochs=6, out=tmp_path)
        assert len(fits) == 8
        for (copied, before, _), (net, modes, _) in zip(fits[::2], fits[1::2], strict=True):
            assert copied is not net
            assert modes <= before
        assert "crossover" in fits[5][1]

    def test_what_ran_before_changes_no_result(self, result, tmp_path, monkeypatch):
        monkeypatch.setattr(MODULE, "_warm_up", lambda *what: None)
        found = comparison_of(
            "digits-mlp", methods=("hybrid",), time_steps=2, epochs=4, out=tmp_path
        )
        without, usual = found["methods"]["hybrid"], result[0]["methods"]["hybrid"]
        for method in (without, usual):
            accuracies = [(p["snn_accuracy"], p["ann_accuracy"]) for p in method["over_time"]]
            method["told"] = accuracies, method["over_time_steps"], method["event_rate"]
        assert without["told"] == usual["told"]

    def test_what_had_ended_before_it_was_stopped_is_written(self, tmp_path, monkeypatch):
        own = MODULE._train

        def stopped(method, *what):
            if method == "direct":
                raise KeyboardInterrupt
            return own(method, *what)

        monkeypatch.setattr(MODULE, "_train", stopped)
        with pytest.raises(KeyboardInterrupt):
            comparison_of(methods=("bootstrap", "direct"), time_steps=2, epochs=1, out=tmp_path)
        stored = json.loads((tmp_path / "compare.json").read_text())
        assert list(stored["methods"]) == ["bootstrap"]
        assert (tmp_path / "compare.md").exists()

    def test_methods_of_one_folder_come_together_if_their_settings_are_one(
        self, tmp_path, monkeypatch
    ):
        def trained(method, net, splits, options, *more):
            point = {"epoch": 1, "seconds": 1.0, "snn_accuracy": 90.0, "ann_accuracy": 91.0}
            return {
                "epochs": options.epochs, "seconds": 2.0, "snn_accuracy": 90.0,
                "ann_accuracy": 91.0, "gap": 1.0, "event_rate": 0.1,
                "over_time": [point], "over_time_steps": {2: 90.0},
            }  # fmt: skip

        monkeypatch.setattr(MODULE, "_train", trained)
        monkeypatch.setattr(MODULE, "_warm_up", lambda *what: None)
        monkeypatch.setattr(MODULE, "_pace", lambda *what: PACE)

        def compared(*methods, **settings):
            found = comparison_of(methods=methods, time_steps=2, out=tmp_path, **settings)
            stored = json.loads((tmp_path / "compare.json").read_text())
            assert list(stored["methods"]) == list(found["methods"])
            return found["methods"]

        assert compared("direct", epochs=4)["direct"]["seconds_to_direct"] == 1.0
        both = compared("bootstrap", epochs=4)
        assert list(both) == ["bootstrap", "direct"]
        assert both["bootstrap"]["seconds_to_direct"] == 1.0
        assert both["direct"]["over_time_steps"] == {2: 90.0}
        assert list(compared("direct", epochs=4)) == ["bootstrap", "direct"]
        with pytest.warns(ss.SpikestrapWarning, match="bootstrap, .*: epochs = 4, not 5$"):
            assert list(compared("direct", epochs=5)) == ["direct"]
        with pytest.warns(ss.SpikestrapWarning, match="direct, .*: seed = 0, not 1, budget = None"):
            assert list(compared("ann", seed=1, budget=1e5)) == ["ann"]
        # One of before there were other learning rates is at the recipe's.
        stored = json.loads((tmp_path / "compare.json").read_text())
        del stored["learning_rate"]
        (tmp_path / "compare.json").write_text(json.dumps(stored))
        assert list(compared("direct", seed=1, budget=1e5)) == ["ann", "direct"]
        with pytest.warns(ss.SpikestrapWarning, match=r"ann, .*: learning_rate = .*, not 0\.1$"):
            assert list(compared("direct", seed=1, budget=1e5, learning_rate=0.1)) == ["direct"]
        # Nothing is lost that is not trained anew.
        assert list(compared("ann", "direct", epochs=4)) == ["ann", "direct"]

    @pytest.mark.parametrize("content", ["no JSON", "{}", '{"methods": {"ann": 3}}'])
    def test_a_file_of_something_else_is_left_alone(self, tmp_path, content):
        (tmp_path / "compare.json").write_text(content)
        with pytest.raises(ss.SpikestrapError, match=r"compare\.json"):
            comparison_of(epochs=1, out=tmp_path)
        assert (tmp_path / "compare.json").read_text() == content

    @pytest.mark.slow
    def test_two_processes(self, tmp_path):
        """The first one prints and writes; options go the way from the command line."""
        script = tmp_path / "run.py"
        script.write_text("from spikestrap.cli import main\nmain()\n")
        arguments = ["compare", "--devices", "2", "--precision", "bf16-mixed", "--epochs", "2"]
        arguments += ["--time-steps", "1", "--out", tmp_path, "--json"]
        done = run(sys.executable, script, *arguments)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        methods = json.loads(line)["methods"]
        assert json.loads((tmp_path / "compare.json").read_text())["methods"] == methods
        for name, method in methods.items():
            assert method["ann_accuracy" if name == "ann" else "snn_accuracy"] > 20

    def test_time_steps_out_of_range(self, tmp_path):
        with pytest.raises(ss.SpikestrapError, match="time_steps must be a whole number"):
            comparison_of(time_steps=0, out=tmp_path / "out")

    @pytest.mark.parametrize("methods", [(), ("bootstrap", "bptt")])
    def test_unknown_methods(self, methods, tmp_path):
        with pytest.raises(ss.SpikestrapError, match="methods: expected some of ann, bootstrap"):
            comparison_of(methods=methods, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_some_of_the_methods(self, result, tmp_path):
        """Each trains as it does among the others."""
        found = comparison_of(
            methods=("bootstrap", "ann"), time_steps=2, epochs=4, out=tmp_path / "out"
        )["methods"]
        assert list(found) == ["ann", "bootstrap"]
        for name, method in found.items():
            assert method["seconds_to_direct"] is None
            for key in ("snn_accuracy", "ann_accuracy", "event_rate"):
                assert method[key] == result[0]["methods"][name][key]

    def test_the_ann_alone_has_no_table_over_time_steps(self, tmp_path):
        comparison_of(methods=["ann"], epochs=1, out=tmp_path / "out")
        assert "T = 16" not in (tmp_path / "out" / "compare.md").read_text()

    def test_within_a_budget(self, tmp_path, monkeypatch, fits):
        monkeypatch.setattr(MODULE, "_CALIBRATION_STEPS", 2)
        on = Hardware(precision="bf16-mixed")
        result = comparison_of(time_steps=2, budget=1e-3, out=tmp_path, hardware=on)
        assert [method["epochs"] for method in result["methods"].values()] == 4 * [1]
        assert (result["budget"], result["training_precision"]) == (1e-3, "bf16-mixed")
        # What comes first, what the pace is taken of, and the training.
        assert [hardware for _, _, hardware in fits] == 3 * 4 * [on]

    def test_the_pace_of_few_images(self):
        splits = digits(0)
        few = replace(splits, train=Arrays(splits.train.x[:50], splits.train.y[:50]))
        net = recipe("digits-mlp").network(1)
        pace = _pace(net, few, replace(OWN, batch_size=64), Hardware())
        assert set(pace) == {"snn", "sample", "fit", "ann"}


class TestOptions:
    def test_bootstrap_and_ann_never_train_as_an_snn(self):
        for method in ("ann", "bootstrap"):
            options = options_for(method, replace(OWN, crossover_epochs=(3,)), 3)
            assert (options.snn_epochs, options.crossover_epochs) == (0, None)

    def test_direct_always_does(self):
        assert options_for("direct", OWN, 3).snn_epochs == 20

    def test_all_that_train_as_an_snn_do_so_through_time(self):
        for method in METHODS:
            options = options_for(method, replace(OWN, snn_gradient="rate"), 3)
            assert options.snn_gradient == "surrogate"

    @pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20])
    @pytest.mark.parametrize("units", [1, 2, 5, 30])
    def test_hybrid_crosses_over_unit_by_unit(self, epochs, units):
        options = options_for("hybrid", replace(OWN, epochs=epochs), units)
        crossover = list(options.crossover_epochs)
        assert len(crossover) == units
        assert crossover == sorted(crossover)
        assert epochs // 2 <= crossover[0] <= crossover[-1] < epochs
        assert 1 <= options.snn_epochs <= epochs

    def test_the_rest_is_the_recipes(self):
        for method in METHODS:
            options = options_for(method, OWN, 3)
            for key in ("epochs", "batch_size", "learning_rate", "sample_period"):
                assert getattr(options, key) == getattr(OWN, key)

    def test_long_trainings_are_validated_about_forty_times(self):
        assert options_for("direct", replace(OWN, epochs=400), 3).validate_every == 10


class TestBudget:
    def test_seconds_worked_by_hand(self):
        """Five steps an epoch; of twenty epochs, five sample two steps and fit one."""
        assert _seconds(options_for("bootstrap", OWN, 2), PACE, 2, 5) == (
            5 * (2 * 10 + 3 + 2) + 15 * 5
        )
        assert _seconds(options_for("direct", OWN, 2), PACE, 2, 5) == 20 * 5 * 8

    def test_units_that_crossed_over_cost_as_in_an_snn(self):
        options = replace(OWN, crossover_epochs=(0,), sample_period=100, epochs=10, snn_epochs=2)
        first = 2 * 10 + 3 + (8 - 3) / 2 - (10 - 8) + 2 * 4.5
        assert _seconds(options, PACE, 2, 5) == first + 7 * 5 * 4.5 + 2 * 5 * 8

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("budget", [100.0, 1234.0, 5000.0])
    def test_the_most_epochs_that_fit(self, method, budget):
        options = _within(budget, PACE, method, OWN, units=2, images=50)
        assert _seconds(options, PACE, 2, 5) <= budget
        more = options_for(method, replace(OWN, epochs=options.epochs + 1), 2)
        assert _seconds(more, PACE, 2, 5) > budget

    def test_at_least_one(self):
        assert _within(1e-9, PACE, "direct", OWN, units=2, images=50).epochs == 1


def test_seconds_until_as_good_as_direct_training():
    def over_time(*accuracies, kind="snn_accuracy"):
        other = {"snn_accuracy": None, "ann_accuracy": None}
        return [{**other, "seconds": float(i), kind: a} for i, a in enumerate(accuracies)]

    methods = {
        "ann": {"over_time": over_time(10, 95, kind="ann_accuracy")},
        "bootstrap": {"over_time": over_time(80, 85, 91, 89)},
        "hybrid": {"over_time": over_time(70, 89)},
        "direct": {"over_time": over_time(50, 90, 89)},
    }
    _add_seconds_to_direct(methods)
    reached = [methods[name]["seconds_to_direct"] for name in METHODS]
    assert reached == [1.0, 2.0, None, 1.0]


def test_the_twin_is_the_network_with_relu():
    """Worked by the weights themselves."""
    torch.manual_seed(0)
    net = recipe("mnist-mlp-t4").network()
    twin = relu_twin(net).eval()
    x = torch.rand(3, 1, 28, 28)
    y = x.flatten(1)
    for block in list(net.blocks)[1:3]:
        y = torch.relu(y @ block.synapse.weight.T + block.synapse.bias)
    last = net.blocks[3].synapse
    torch.testing.assert_close(twin(x), y @ last.weight.T + last.bias)
    for mode in (ss.Mode.SNN, ss.LayerMode(ss.Mode.SAMPLE, 1)):
        assert twin(x, mode).equal(twin(x))


@pytest.mark.parametrize("threshold", [0.5, [0.25, 0.5, 0.75]])
def test_the_twin_counts_in_thresholds(threshold):
    net = ss.Network(ss.block.cuba.Dense({"threshold": threshold}, 4, 3), time_steps=2)
    x = torch.rand(5, 4)
    z = net.blocks[0].synapse(x)
    torch.testing.assert_close(relu_twin(net)(x), torch.relu(2 * z))


def test_the_twin_of_a_recipe_with_batch_norm_is_one_function_at_every_T():
    """What ReLU is divided by and what the readout is given cancel, but for the norms' epsilon."""
    logits = []
    for time_steps in (1, 4):
        torch.manual_seed(0)
        twin = relu_twin(recipe("cifar10-cnn").network(time_steps)).train()
        logits.append(twin(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-3)
    assert logits[0].std() > 0.1


def test_the_twin_of_a_network_with_blocks_in_blocks_has_no_unit_left():
    net = ss.Network(ss.block.Residual(ss.block.cuba.Conv, {"threshold": 1.0}, 1, 2), time_steps=2)
    twin = relu_twin(net)
    assert not list(ss.unit.units_of(twin))
    assert twin(torch.rand(2, 1, 4, 4), ss.Mode.SNN).shape == (2, 2, 4, 4)
