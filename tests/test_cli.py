import io
import json
import os
import re
import subprocess
import sys

import onnx.reference
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.nmnist import write_data
from tests.processes import environment, run
from tests.train.test_compare_report import RESULT as COMPARED

import spikestrap
import spikestrap as ss
from spikestrap import train as training
from spikestrap.cli import main
from spikestrap.train.data import load
from spikestrap.train.run import load_run

TRAIN_KEYS = {
    "recipe", "time_steps", "epochs", "seed", "snn_accuracy", "ann_accuracy", "gap", "event_rate",
    "seconds", "parameters", "out", "report",
}  # fmt: skip
EVALUATE_KEYS = {
    "recipe", "time_steps", "snn_accuracy", "ann_accuracy", "gap", "event_rate", "samples",
    "seconds", "run",
}  # fmt: skip


@pytest.fixture
def spikestrap_command(capsys):
    """Runs the command line; gives exit code, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as leave:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return leave.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training, run as a user runs it: in a folder of its own, from the shell."""
    folder = tmp_path_factory.mktemp("work")
    command = [sys.executable, "-m", "spikestrap", "train"]
    command += ["--epochs", "3", "--time-steps", "4", "--seed", "1", "--json"]
    done = run(*command, cwd=folder, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_what_training_and_its_report_both_warn_of_is_told_once(tmp_path):
    command = [sys.executable, "-m", "spikestrap", "train", "--epochs", "1", "--data", tmp_path]
    done = run(*command, "--out", tmp_path / "run")
    assert done.returncode == 0
    assert done.stderr.count("the digits come with scikit-learn, nothing is read from") == 1


def test_train_prints_json_last_and_progress_on_standard_error(trained):
    _, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == TRAIN_KEYS
    assert result["recipe"] == "digits-mlp"
    assert (result["time_steps"], result["epochs"], result["seed"]) == (4, 3, 1)
    assert 30 < result["snn_accuracy"] <= 100
    assert result["gap"] == pytest.approx(result["ann_accuracy"] - result["snn_accuracy"])
    assert 0 < result["event_rate"] < 1
    assert {"total", "sample", "fit", "ann", "evaluation"} <= set(result["seconds"])
    assert result["parameters"] > 10_000
    assert result["out"] == os.path.join("runs", "digits-mlp-T4-s1")
    assert result["report"] == os.path.join(result["out"], "report.html")
    lines = done.stderr.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "SNN" in lines[-1]
    assert "ANN" in lines[-1]


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_train_logs_into_the_run_directory(spikestrap_command, tmp_path, logger):
    arguments = ("--epochs", 2, "--time-steps", 2, "--precision", "bf16-mixed", "--out", tmp_path)
    code, out, _ = spikestrap_command("train", *arguments, "--logger", logger, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["snn_accuracy"] > 30
    logs, wanted = tmp_path / "logs", {"snn_accuracy", "ann_accuracy", "gap", "event_rate", "loss"}
    if logger == "csv":
        header = (logs / "metrics.csv").read_text().splitlines()[0].split(",")
    else:
        events = EventAccumulator(str(logs))
        events.Reload()
        header = events.Tags()["scalars"]
        assert events.Tags()["images"] == ["curves"]
    assert wanted <= set(header)
    assert sum(name.startswith("event_rate/net.blocks.") for name in header) == 3


def test_train_leaves_a_run_directory(trained):
    folder, _ = trained
    names = {path.name for path in (folder / "runs" / "digits-mlp-T4-s1").iterdir()}
    assert names == {
        "config.json", "history.json", "curves.json", "best.pt", "result.json", "report.html",
        "last.ckpt", "previous.ckpt",
    }  # fmt: skip


def test_what_nir_has_no_word_for_can_be_allowed(trained, spikestrap_command, tmp_path):
    run = trained[0] / "runs" / "digits-mlp-T4-s1"
    arguments = ("export", run, "--format", "nir", "--out", tmp_path / "network.nir")
    code, _, err = spikestrap_command(*arguments)
    assert (code, "--allow reset" in err) == (1, True)
    code, _, err = spikestrap_command(*arguments, "--allow", "reset", "--allow", "v_init")
    assert code == 0, err


def test_early_stopping_tells_the_epochs_that_there_were(spikestrap_command, tmp_path):
    run = tmp_path / "run"
    arguments = ("train", "--epochs", 60, "--patience", 1, "--batch-size", 600, "--time-steps", 1)
    result = json.loads(spikestrap_command(*arguments, "--out", run, "--json")[1].splitlines()[-1])
    history = json.loads((run / "history.json").read_text())
    assert result["epochs"] == len(history["epochs"]) < 60


def test_learning_rate_and_batch_size_go_where_training_and_comparison_keep_it(
    spikestrap_command, tmp_path
):
    how = ("--epochs", 2, "--time-steps", 2, "--out", tmp_path)
    code, _, err = spikestrap_command("train", *how, "--learning-rate", 0.02)
    assert code == 0, err
    epochs = json.loads((tmp_path / "history.json").read_text())["epochs"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["options"]["learning_rate"] == 0.02
    assert 0.01 < epochs[0]["learning_rate"] <= 0.02  # near its peak
    assert "--learning-rate 0.02" in (tmp_path / "report.html").read_text()
    assert load_run(tmp_path).options.learning_rate == 0.02
    code, _, err = spikestrap_command(
        "compare", "--method", "bootstrap", *how, "--learning-rate", 0, "--batch-size", 100
    )
    assert code == 0, err
    compared = json.loads((tmp_path / "compare.json").read_text())
    assert (compared["learning_rate"], compared["batch_size"]) == (0, 100)
    assert compared["methods"]["bootstrap"]["snn_accuracy"] < 40  # has not learned


def test_evaluate_gives_the_numbers_of_the_training(trained, spikestrap_command):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    run = folder / expected["out"]
    code, out, _ = spikestrap_command("evaluate", run, "--json")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert set(result) == EVALUATE_KEYS
    assert result["samples"] == 450
    assert result["run"] == str(run)
    for key in ("recipe", "time_steps", "snn_accuracy", "ann_accuracy", "gap", "event_rate"):
        assert result[key] == pytest.approx(expected[key]), key


def test_evaluate_at_another_t_has_no_ann(trained, spikestrap_command):
    folder, _ = trained
    run = folder / "runs" / "digits-mlp-T4-s1"
    code, out, _ = spikestrap_command("evaluate", run, "--time-steps", 16, "--json")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert result["time_steps"] == 16
    assert result["snn_accuracy"] > 30
    assert result["ann_accuracy"] is None
    assert result["gap"] is None


def test_evaluate_shows_a_table(trained, spikestrap_command):
    folder, _ = trained
    code, out, err = spikestrap_command("evaluate", folder / "runs" / "digits-mlp-T4-s1")
    assert (code, err) == (0, "")
    for text in ("SNN test accuracy", "ANN test accuracy", "points", "event rate", "seconds"):
        assert text in out


def test_report(trained, spikestrap_command, tmp_path):
    run, file = trained[0] / "runs" / "digits-mlp-T4-s1", tmp_path / "page.html"
    code, out, err = spikestrap_command("report", run, "--out", file, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert set(result) == {"run", "file", "bytes", "images", "seconds"}
    assert (result["run"], result["file"], result["images"]) == (str(run), str(file), 450)
    # The one that the training wrote is the same page.
    assert file.read_bytes() == (run / "report.html").read_bytes()
    code, out, err = spikestrap_command("report", run, "--no-evaluate", "--out", file)
    assert (code, err) == (0, "")
    assert out == f"{file}: {file.stat().st_size:,} bytes\n"
    assert file.stat().st_size < result["bytes"]


def test_a_training_is_not_lost_with_its_report(spikestrap_command, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("the ink\nis out")

    monkeypatch.setattr("spikestrap.report.write_report", fail)
    code, out, err = spikestrap_command("train", "--epochs", 1, "--out", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["report"] is None
    assert err.splitlines()[-1] == "warning: no report was written: the ink is out"
    assert json.loads((tmp_path / "result.json").read_text())["snn_accuracy"] > 10


def test_the_same_seed_trains_the_same(spikestrap_command, tmp_path):
    results = []
    for name in ("a", "b"):
        code, out, _ = spikestrap_command(
            "train", "digits-mlp", "--epochs", 1, "--batch-size", 200, "--out", tmp_path / name,
            "--json",
        )  # fmt: skip
        assert code == 0
        results.append(json.loads(out.splitlines()[-1]))
    for key in ("snn_accuracy", "ann_accuracy", "event_rate"):
        assert results[0][key] == results[1][key]


def test_recipes(spikestrap_command):
    code, out, err = spikestrap_command("recipes", "--json")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    names = [entry["name"] for entry in json.loads(line)["recipes"]]
    assert names == [
        *("digits-mlp", "digits-cnn", "mnist-mlp", "mnist-cnn"),
        *("mnist-mlp-t4", "mnist-cnn-t2", "cifar10-cnn", "cifar10-resnet18", "cifar10-vgg16"),
        *("nmnist", "digits-mlp-loihi", "mnist-mlp-loihi"),
    ]
    code, out, _ = spikestrap_command("recipes")
    assert code == 0
    assert all(name in out for name in names)


def test_compare_prints_json_last_and_progress_on_standard_error(spikestrap_command, tmp_path):
    arguments = ("compare", "--epochs", 1, "--time-steps", 2, "--seed", 3, "--out", tmp_path)
    code, out, err = spikestrap_command(*arguments, "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert (result["recipe"], result["time_steps"], result["seed"]) == ("digits-mlp", 2, 3)
    assert list(result["methods"]) == ["ann", "bootstrap", "hybrid", "direct"]
    assert set(result["methods"]["bootstrap"]) == {
        "epochs", "seconds", "seconds_to_direct", "snn_accuracy", "ann_accuracy", "gap",
        "event_rate", "over_time", "over_time_steps",
    }  # fmt: skip
    lines = [line.split("  ")[:2] for line in err.splitlines() if "epoch" in line]
    assert lines == [[name, "epoch 1/1"] for name in result["methods"]]


def test_compare_shows_a_table(spikestrap_command, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "spikestrap.train.compare", lambda *recipe, **options: asked.update(options) or COMPARED
    )
    code, out, _ = spikestrap_command(
        *("compare", "--budget", "1.5", "--method", "bootstrap", "--method", "direct"),
        *("--precision", "bf16-mixed"),
    )
    assert code == 0
    assert (asked["budget"], asked["methods"]) == (1.5, ["bootstrap", "direct"])
    assert asked["hardware"].precision == "bf16-mixed"
    for text in ("digits-mlp, T = 4", "bootstrap", "97.50", "table and plot: here"):
        assert text in out


def test_version(spikestrap_command):
    assert spikestrap_command("--version") == (0, f"spikestrap {spikestrap.__version__}\n", "")


def test_help_lists_the_commands(spikestrap_command):
    code, out, _ = spikestrap_command("--help")
    assert code == 0
    assert all(command in out for command in ("train", "evaluate", "report", "recipes"))


@pytest.mark.parametrize("command", ["train", "evaluate", "export", "recipes"])
def test_help_ends_with_examples(spikestrap_command, command):
    code, out, _ = spikestrap_command(command, "--help")
    assert code == 0
    _, examples = out.split("Examples:\n")
    assert all(line.startswith(f"    spikestrap {command}") for line in examples.splitlines())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["tarin"], "No such command 'tarin'. Did you mean 'train'?"),
        (["train", "--epoch", "3"], "No such option: --epoch (Possible options: --chip, --epochs)"),
    ],
)
def test_a_typing_error_gets_a_suggestion(spikestrap_command, arguments, hint):
    code, out, err = spikestrap_command(*arguments)
    assert (code, out) == (2, "")
    assert hint in err


# The program that a shell asks at every TAB, as `--install-completion` sets it up.
COMPLETE = {
    "_SPIKESTRAP_COMPLETE": "complete_bash",
    "COMP_WORDS": "spikestrap e",
    "COMP_CWORD": "1",
}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--version"], {}, "spikestrap "),
        (["train", "--help"], {}, "Usage: spikestrap train"),
        ([], COMPLETE, "evaluate\nexport\n"),
    ],
    ids=["version", "help", "completion"],
)
def test_answers_without_loading_torch(arguments, environment, expected):
    code = (
        "import sys; from spikestrap.cli import main\n"
        "try: main()\n"
        "finally: print({'torch', 'numpy', 'numba'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = run(sys.executable, "-c", code, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert done.stderr == "set()\n"


@pytest.fixture(scope="module")
def on_chip(tmp_path_factory):
    """The folder of a short training at the chip's precision."""
    folder = tmp_path_factory.mktemp("chip") / "run"
    with pytest.raises(SystemExit) as leave:
        main(["train", "digits-mlp-loihi", "--epochs", "2", "--out", str(folder), "--json"])
    assert not leave.value.code
    return folder


def test_an_exported_run_gives_the_accuracy_of_the_run(spikestrap_command, on_chip):
    code, out, _ = spikestrap_command("export", on_chip, "--json")
    exported = json.loads(out)
    file = on_chip / "network.net"
    assert code == 0
    assert exported == {
        "file": str(file), "format": "net", "time_steps": 8, "bytes": file.stat().st_size,
    }  # fmt: skip
    found = [
        json.loads(spikestrap_command("evaluate", path, "--json")[1]) for path in (on_chip, file)
    ]
    of_run, of_file = found
    assert of_file["data"] == "digits"
    for key in ("snn_accuracy", "time_steps", "samples"):
        assert of_file[key] == of_run[key]
    assert of_file["event_rate"] == pytest.approx(of_run["event_rate"])
    assert of_file["cost"]["synaptic_operations"] > 0
    code, out, _ = spikestrap_command("evaluate", file, "--time-steps", 2)
    assert code == 0
    assert "network.net, T = 2" in out


def test_what_a_format_cannot_hold_is_refused(spikestrap_command, trained):
    run = trained[0] / "runs" / "digits-mlp-T4-s1"
    for kind, message in (
        (
            "net",
            "error: --format net: expected a run on the chip's weights, from train --chip loihi",
        ),
        ("nir", "error: NIR: block 1 (Input): NIR only knows the reset to v_reset; got"),
        ("zip", "error: --format: expected one of net, nir, onnx, got 'zip'"),
    ):
        code, out, err = spikestrap_command("export", run, "--format", kind)
        assert (code, out) == (1, "")
        assert err.startswith(message)
    assert not list(run.glob("network.*"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Three recordings a digit and part, in N-MNIST's own format."""
    return write_data(tmp_path_factory.mktemp("events"), each=3)


def test_a_recipe_on_events_from_training_to_report(spikestrap_command, recordings, tmp_path):
    run = tmp_path / "run"
    train = ("train", "nmnist", "--data", recordings, "--time-steps", 3, "--epochs", 3)
    code, out, err = spikestrap_command(*train, "--batch-size", 2, "--out", run, "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert set(result) == TRAIN_KEYS
    assert (result["recipe"], result["time_steps"]) == ("nmnist", 3)
    assert result["seconds"]["sample"] > 0
    assert result["ann_accuracy"] is not None
    assert (run / "report.html").is_file()

    evaluated = json.loads(spikestrap_command("evaluate", run, "--json")[1])
    assert evaluated["samples"] == 30
    for key in ("snn_accuracy", "ann_accuracy", "event_rate"):
        assert evaluated[key] == result[key]
    other = json.loads(spikestrap_command("evaluate", run, "--time-steps", 5, "--json")[1])
    assert (other["time_steps"], other["ann_accuracy"]) == (5, None)

    resumed = json.loads(spikestrap_command("train", "--resume", run, "--json")[1])
    assert resumed["snn_accuracy"] == result["snn_accuracy"]
    assert spikestrap_command("export", run, "--format", "onnx")[0] == 0


@pytest.mark.filterwarnings("ignore:BootstrapCallback. nothing trains")
def test_methods_are_compared_on_events(spikestrap_command, recordings, tmp_path):
    arguments = ("compare", "nmnist", "--data", recordings, "--time-steps", 3, "--epochs", 1)
    code, out, err = spikestrap_command(*arguments, "--out", tmp_path, "--json")
    assert code == 0, err
    # A recording of three steps has no fourth.
    over_time = json.loads(out)["methods"]["bootstrap"]["over_time_steps"]
    assert list(over_time) == ["1", "2", "3"]


def test_a_file_for_events_is_evaluated_on_them(spikestrap_command, recordings, tmp_path):
    neuron = {"threshold": 1.0, "voltage_decay": 0.1}
    net = ss.Network(ss.block.Flatten(), ss.block.lif.Dense(neuron, 2312, 10))
    ss.save(net, tmp_path / "events.nir", input_shape=(2, 34, 34))
    evaluate = ("evaluate", tmp_path / "events.nir", "--data", recordings, "--json")
    code, _, err = spikestrap_command(*evaluate)
    assert (code, err.splitlines()[-1][-14:]) == (1, "--time-steps T")
    code, out, err = spikestrap_command(*evaluate, "--time-steps", 3)
    assert code == 0, err
    found = json.loads(out)
    assert (found["data"], found["time_steps"], found["samples"]) == ("nmnist", 3, 30)
    test = load("nmnist", recordings, 0, 3).test
    assert found["snn_accuracy"] == training.evaluate(net, test, ss.Mode.SNN)


def test_without_a_folder_events_are_not_downloaded(spikestrap_command, tmp_path):
    code, out, err = spikestrap_command("train", "nmnist", "--out", tmp_path / "run")
    assert (code, out) == (1, "")
    assert err.startswith("error: N-MNIST is not downloaded (https://")
    assert len(err.splitlines()) == 1


def test_a_float_run_becomes_a_nir_file(spikestrap_command, tmp_path):
    run, file = tmp_path / "run", tmp_path / "digits.nir"
    train = ["train", "digits-mlp-loihi", "--chip", "none", "--epochs", 1, "--out", run]
    assert spikestrap_command(*train)[0] == 0
    code, out, err = spikestrap_command("export", run, "--format", "nir", "--out", file)
    assert (code, err) == (0, "")
    assert out == f"{file}: {file.stat().st_size:,} bytes, T = 8\n"
    of_run, of_file = (
        json.loads(spikestrap_command("evaluate", path, "--json")[1]) for path in (run, file)
    )
    assert of_file["data"] == "digits"
    for key in ("snn_accuracy", "time_steps", "samples"):
        assert of_file[key] == of_run[key]
    assert of_file["event_rate"] == pytest.approx(of_run["event_rate"])


def test_the_onnx_file_of_a_run_has_the_accuracy_of_its_ann(spikestrap_command, on_chip):
    code, out, err = spikestrap_command("export", on_chip, "--format", "onnx", "--json")
    exported, file = json.loads(out), on_chip / "network.onnx"
    assert (code, err) == (0, "")
    assert exported == {
        "file": str(file), "format": "onnx", "time_steps": 8, "bytes": file.stat().st_size,
    }  # fmt: skip
    test = load("digits", None, seed=0).test
    session = onnx.reference.ReferenceEvaluator(str(file))
    (logits,) = session.run(["logits"], {"input": test.x.numpy()})
    right = (logits.argmax(1) == test.y.numpy()).mean()
    expected = json.loads(spikestrap_command("evaluate", on_chip, "--json")[1])["ann_accuracy"]
    assert 100 * right == pytest.approx(expected)


def test_without_the_package_onnx_one_line_names_the_extra(
    spikestrap_command, on_chip, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnx", None)
    file = tmp_path / "digits.onnx"
    code, out, err = spikestrap_command("export", on_chip, "--format", "onnx", "--out", file)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ONNX files need the package onnx")
    assert "pip install 'spikestrap[onnx]'" in line
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["evaluate", "file.onnx"],
            "expected the folder of a run, a .net or a .nir file, got file.onnx",
        ),
        (["evaluate", "none.net"], "none.net: cannot be read: No such file"),
        (["evaluate", "x.net", "--devices", "2"], "x.net: a file runs in one process"),
        (["evaluate", "x.net", "--precision", "foo"], "--precision: expected one of 32-true"),
        (["export", "x", "--allow", "reset"], "--allow: is for --format nir, got 'net'"),
        (["train", "--chip", "int"], "--chip: expected loihi or none, got 'int'"),
        (["train", "--precision", "loihi"], "--precision: expected one of 32-true.*--chip loihi"),
        (["train", "--precision", "16-mixed"], "--precision: 16-mixed needs a GPU"),
        (["compare", "--precision", "16-mixed"], "--precision: 16-mixed needs a GPU"),
        (["train", "--strategy", "fsdp"], "--strategy: expected one of auto, ddp, got .fsdp."),
        (["train", "--logger", "x"], "--logger: expected one of tensorboard, csv, got .x."),
        (["train", "mnist-mlp", "--resume", "x"], "--resume: takes recipe from the run"),
        (["evaluate", "none.nir"], "none.nir: no such file"),
        (["train", "digit-mlp"], "recipe: expected one of digits-mlp.*did you mean 'digits-mlp'?"),
        (["train", "--time-steps", "0"], "time_steps must be a whole number from 1 to 1024, got 0"),
        (["train", "--epochs", "-1"], "epochs must be a whole number >= 1, got -1"),
        (["train", "--batch-size", "0"], "batch_size must be a whole number >= 1, got 0"),
        (["compare", "--batch-size", "0"], "batch_size must be a whole number >= 1, got 0"),
        (
            ["train", "--learning-rate", "-1"],
            "learning_rate must be a finite number >= 0, got -1.0",
        ),
        (
            ["compare", "--learning-rate", "nan"],
            "learning_rate must be a finite number >= 0, got nan",
        ),
        (["train", "--seed", "-1"], "seed must be a whole number from 0 to 4294967295, got -1"),
        (["train", "--data", "missing"], "--data: expected a folder.*, got missing"),
        (["train", "mnist-mlp", "--data", "."], "expected the four IDX files of MNIST"),
        (["train", "--out", "file"], "--out: expected a folder that can be written, got file"),
        (["evaluate", "missing"], "run: expected the folder of a run, got missing"),
        (["evaluate", "."], "config.json: cannot be read: No such file"),
        (["report", "missing"], "run: expected the folder of a run, got missing"),
        (["report", "."], "config.json: cannot be read: No such file"),
        (["report", ".", "--out", "none/page.html"], "--out: expected a file in a folder"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(
    spikestrap_command, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # a GPU refuses less
    (tmp_path / "file").write_text("")
    code, out, err = spikestrap_command(*arguments, "--json")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("where", "said"), [((), ""), (("metrics.csv",), "metrics.csv: ")])
def test_what_the_system_refuses_on_the_way_is_one_line(
    spikestrap_command, monkeypatch, where, said
):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", *where)

    monkeypatch.setattr("spikestrap.train.train", full)
    assert spikestrap_command("train") == (1, "", f"error: {said}No space left on device\n")


def test_a_standard_output_that_takes_nothing_is_one_line():
    command = [sys.executable, "-m", "spikestrap", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment()
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match("error: .*No space left on device$", line)


def test_a_name_that_standard_output_cannot_spell_is_escaped(trained, tmp_path, monkeypatch):
    run, written = trained[0] / "runs" / "digits-mlp-T4-s1", io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as leave:
        main(["report", str(run), "--no-evaluate", "--out", str(tmp_path / "ä.html")])
    assert not leave.value.code
    assert b"/\\xe4.html: " in written.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--out", ""],
        ["train", "--data", ""],
        ["train", "--resume", ""],
        ["evaluate", ""],
        ["compare", "--out", ""],
        ["export", ""],
        ["export", "run", "--out", ""],
        ["report", ""],
        ["report", "run", "--out", ""],
    ],
)
def test_an_empty_path_is_wrong_usage(spikestrap_command, arguments):
    code, out, err = spikestrap_command(*arguments)
    assert (code, out) == (2, "")
    assert "expected a path, got an empty one" in err


@pytest.mark.parametrize(
    "arguments",
    [["tarin"], ["train", "--time-steps", "four"], ["train", "--colour"], ["evaluate"]],
)
def test_wrong_usage_is_exit_code_2(spikestrap_command, arguments):
    code, out, err = spikestrap_command(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: spikestrap" in err
