"""The benchmarks run and say what they promise; how fast is for a quiet machine to tell."""

import importlib
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.export import compare
from benchmarks.neurons import NEURONS
from tests import processes
from tests.train.test_data import write_mnist

from spikestrap.train import Arrays, Splits, train

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
STEP = {
    "ann_over_relu", "sample_over_relu", "direct_over_relu",
    *(
        f"direct_over_{peer}{how}"
        for peer in ("snntorch", "spikingjelly", "norse")
        for how in ("", "_first_layer_once")
    ),
}  # fmt: skip
RATIOS = {
    "compiled": {
        f"{name}_{what}"
        for name in (*NEURONS, "ChipCUBA", "Delta", "SigmaDelta")
        for what in ("over_copy_limit", "speedup_over_reference")
    },
    "neuron": {
        "speedup_over_spikingjelly", "speedup_over_snntorch", "speedup_over_norse",
        "over_copy_limit", "over_six_tensor_copy",
    },
    "step": STEP,
    "conv": STEP,
    "sweep": {
        f"{network}_{ratio}"
        for network, most in (("mlp", 32), ("cnn", 16))
        for ratio in (
            "ann_256_over_4",
            *(f"snn_{2 * few}_over_{few}" for few in (2, 4, 8, 16) if 2 * few <= most),
            *(
                f"{batch}_{ours}_over_{other}"
                for batch in (2, 4, 8)
                for ours in ("ann", "direct")
                for other in ("relu", "fastest_peer")
            ),
        )
    },
    "foreign": {
        "speedup_over_snntorch", "speedup_over_spikingjelly", "speedup_over_norse",
        "speedup_over_sinabs", "relu_over_snntorch", "relu_over_spikingjelly",
        "relu_over_norse", "relu_over_sinabs",
    },
    "inference": {
        f"{network}_{batch}_speedup_over_{other}"
        for network in ("mlp", "cnn")
        for batch in (4, 2, 1)
        for other in ("snntorch", "spikingjelly", "norse", "spikestrap", "relu", "products")
    },
}  # fmt: skip
FACTS = {
    "compiled": {"shape", "activity", "first_call_seconds"},
    "neuron": {"shape", "activity"},
    "step": {"widths", "batch", "time_steps", "activity"},
    "conv": {"size", "widths", "batch", "time_steps", "activity"},
    "sweep": {
        "sizes", "batch", "batches", "time_steps", "fastest_peer", "images_per_second",
    },
    "foreign": {"size", "widths", "batch", "time_steps", "activity"},
    "inference": {"sizes", "batches", "time_steps", "activity", "images_per_second"},
}  # fmt: skip
ALWAYS = {"spread", "milliseconds", "rounds", "quick", "allocator", "threads", "versions"}


def run(name, *options):
    return processes.run(sys.executable, BENCHMARKS / f"{name}.py", "--quick", *options)


@pytest.mark.parametrize("name", RATIOS)
def test_json_is_the_last_line(name):
    done = run(name, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == RATIOS[name] | FACTS[name] | ALWAYS
    assert set(result["spread"]) == RATIOS[name]
    for key in RATIOS[name]:
        low, high = result["spread"][key]
        assert 0 < low <= result[key] <= high < math.inf
    assert ("compiled" if name == "compiled" else "spikestrap") in " ".join(result["milliseconds"])
    assert all(0 < seconds < 60 for seconds in result.get("first_call_seconds", {}).values())
    for spread in result["milliseconds"].values():
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert result["rounds"] == 2
    peers = set() if name == "compiled" else {"spikingjelly", "snntorch"}
    assert {"torch", "spikestrap"} | peers <= set(result["versions"])


def test_kills_ends_the_same():
    command = [sys.executable, BENCHMARKS / "kills.py", "--kills", "1", "--epochs", "1"]
    done = processes.run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 kills, 0 end differently"


def test_neurons_fills_in_its_page(tmp_path):
    page = tmp_path / "neurons.md"
    text = (BENCHMARKS.parent / "docs" / "neurons.md").read_text()
    page.write_text(
        re.sub(r"(<!-- LIF -->\n).*?(<!-- end -->)", r"\1\2", text, count=1, flags=re.S)
    )
    command = [sys.executable, BENCHMARKS / "neurons.py", "--size", "4", "--json"]
    done = processes.run(*command, "--write", page)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert {row["T"] for row in rows} == {2, 4, 16}
    assert {row["reset"] for row in rows} == {"zero", "subtract", "none"}
    assert all(0 <= row["rounded"] <= 1 and 0 <= row["rate"] <= 1 for row in rows)
    written = page.read_text()
    assert "<!-- LIF -->\n| reset | T = 2" in written
    for row in rows:
        assert f"<!-- {row['neuron']} -->" in written
    assert list(tmp_path.iterdir()) == [page]


def test_scaling():
    done = run("scaling", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    for mode in ("ann", "snn"):
        one, two = (f"{mode}, {name}" for name in ("one process", "2 processes"))
        milliseconds = [result["milliseconds"][name]["median"] for name in (one, two)]
        images = [result["images_per_second"][name] for name in (one, two)]
        assert result[f"{mode}_efficiency"] == pytest.approx(
            milliseconds[0] / milliseconds[1], rel=1e-3
        )
        assert result[f"{mode}_efficiency"] == pytest.approx(images[1] / (2 * images[0]), rel=1e-2)
        assert images[0] == pytest.approx(1000 * result["batch"] / milliseconds[0], rel=1e-3)
    assert result["processes"] == 2
    assert result["threads"] == {"torch": 1, "numba": 1}


def test_accuracy_hands_the_precision_on():
    def accuracy(precision):
        command = [sys.executable, BENCHMARKS / "accuracy.py", "digits-mlp", "--time-steps", "2"]
        command += ["--seeds", "0", "--epochs", "2", "--precision", precision]
        return processes.run(*command)

    done = accuracy("bf16-mixed")
    assert done.returncode == 0, done.stderr
    _, _, row = (line.strip("| ").split(" | ") for line in done.stdout.splitlines())
    assert row[:3] == ["digits-mlp", "2", "2"]
    assert float(row[3].split()[0]) > 40
    assert "--precision: expected one of 32-true" in accuracy("half").stderr


def test_memory():
    done = run("memory", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    ours, theirs = list(result["mebibytes"].values())[2:]
    assert len(result["mebibytes"]) == 4
    assert result["direct_over_spikingjelly"] == pytest.approx(ours / theirs)
    assert result["ann_64_over_4"] > 0


def test_without_json_there_are_tables():
    done = run("neuron", "--rounds", "1", "--default-allocator")
    assert done.returncode == 0, done.stderr
    assert "over_copy_limit" in done.stdout
    assert "{" not in done.stdout


def test_no_rounds_is_wrong_usage():
    done = run("neuron", "--rounds", "0")
    assert done.returncode == 2
    assert "--rounds must be at least 1, got 0" in done.stderr


def test_an_exported_network_classifies_every_image_as_the_trained_one(tmp_path):
    train("digits-mlp-loihi", epochs=2, out=tmp_path)
    result = compare(tmp_path, None)
    assert (result["recipe"], result["time_steps"]) == ("digits-mlp-loihi", 8)
    assert result["samples"] == 450
    assert result["differing_predictions"] == 0
    assert result["largest_difference_of_logits"] < 1e-5
    assert result["file_accuracy"] == result["network_accuracy"] > 50


def test_the_ablation_has_a_row_for_each_change(tmp_path):
    write_mnist(tmp_path)
    changes = ["the recipe", "ReLU twin", "direct training", "no rounding", "spiking input"]
    command = [sys.executable, BENCHMARKS / "ablation.py", "--data", tmp_path, "--epochs", "2"]
    command += ["--time-steps", "2", "--seeds", "0", "--part", "validation", "--changes", *changes]
    done = processes.run(*command)
    assert done.returncode == 0, done.stderr
    head, _, *rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines()]
    assert head == ["change", "T", "epochs", "SNN %", "ANN %", "gap, points", "seconds"]
    assert [row[0] for row in rows] == changes
    for name, steps, epochs, snn, ann, gap, _ in rows:
        assert (steps, epochs) == ("2", "2")
        assert (snn == "-") == (name == "ReLU twin")
        assert (ann == "-") == (name == "direct training")
        assert (gap == "-") == (name in ("ReLU twin", "direct training"))


def test_a_choice_is_measured_on_images_that_are_not_trained_on(tmp_path, monkeypatch):
    write_mnist(tmp_path, train=40)
    command = [sys.executable, BENCHMARKS / "choose.py", "mnist-mlp-t4", "--data", tmp_path]
    command += ["--images", "16", "--epochs", "1", "--time-steps", "2", "--seeds", "0"]
    changes = ["batch_size=8", "snn_gradient=rate", "snn_epochs=1 learning_rate=0"]
    done = processes.run(*command, *(part for name in changes for part in ("--change", name)))
    assert done.returncode == 0, done.stderr
    head, _, *rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines()]
    assert head == ["change", "T", "epochs", "SNN %", "ANN %", "gap, points", "seconds"]
    assert [row[0] for row in rows] == ["the recipe", *changes]
    assert all(row[1:3] == ["2", "1"] for row in rows)
    assert [row[4] == "-" for row in rows] == [False, False, False, True]  # an SNN throughout
    monkeypatch.syspath_prepend(BENCHMARKS)
    parts = importlib.import_module("choose").parts
    images = Arrays(torch.arange(5).view(5, 1), torch.arange(5))
    splits, rest = parts(Splits("five", 5, images, Arrays(images.x + 5, images.y), images), 2)
    assert splits.train.x.flatten().tolist() == [0, 1]
    assert rest.x.flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert rest.y.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]


def test_maps_are_measured_by_layer_and_by_channel(tmp_path):
    write_mnist(tmp_path, train=40)
    changes = ["one curve a layer", "one a channel", "direct training"]
    command = [sys.executable, BENCHMARKS / "maps.py", "--data", tmp_path, "--images", "16"]
    done = processes.run(*command, "--time-steps", "2", "--seeds", "0", "--changes", *changes)
    assert done.returncode == 0, done.stderr
    _, _, *rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines()]
    assert [row[0] for row in rows] == changes
    assert [row[4] == "-" for row in rows] == [False, False, True]
