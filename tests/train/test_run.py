import json
import os
import pickle
import re
import zipfile
from dataclasses import replace

import pytest
import torch

import spikestrap as ss
from spikestrap.files import write_file
from spikestrap.train.loop import Epoch, History
from spikestrap.train.recipes import recipe
from spikestrap.train.run import (
    clear_run,
    load_config,
    load_run,
    prepare_run,
    save_config,
    save_run,
)

X = torch.rand(6, 1, 8, 8)


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = recipe("digits-mlp").network(3)
    net(X, ss.Mode.SAMPLE)
    net(X, ss.Mode.FIT)
    return net.eval()


@pytest.fixture
def run(net, tmp_path):
    made_by = recipe("digits-mlp")
    history = History([Epoch(0, 1.5, 1e-3, {"ann": 2}, 0.1, 90.0, None)], 0, {"total": 0.2})
    path = prepare_run(tmp_path / "deep" / "run")
    result = {"snn_accuracy": 90.0}
    save_run(path, made_by, made_by.options, 3, 7, tmp_path, net, history, result)
    return path


def edit_config(run, **changes):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **changes}))


def test_round_trip(run, net, tmp_path):
    loaded = load_run(run)
    assert (loaded.recipe.name, loaded.time_steps, loaded.seed) == ("digits-mlp", 3, 7)
    assert loaded.data == tmp_path.resolve()
    loaded.net.eval()
    for mode in (ss.Mode.SNN, ss.Mode.ANN):
        assert loaded.net(X, mode).equal(net(X, mode))


def test_a_run_keeps_its_number_of_epochs_as_an_snn(net, tmp_path):
    """With which it goes on, whatever the recipe has."""
    made_by = recipe("digits-mlp")
    options = replace(made_by.options, epochs=3, snn_epochs=2)
    save_config(tmp_path, made_by, options, 3, 7, None, net)
    assert load_config(tmp_path).options == options


def test_the_files_are_readable_and_no_other_is_left(run):
    names = {"config.json", "history.json", "curves.json", "best.pt", "result.json"}
    assert {path.name for path in run.iterdir()} == names
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["augment"]["shift"] == recipe("digits-mlp").options.augment.shift
    assert set(config["versions"]) == {"spikestrap", "torch", "python"}
    history = json.loads((run / "history.json").read_text())
    assert history["epochs"][0]["snn_accuracy"] == 90.0
    assert history["epochs"][0]["ann_accuracy"] is None


@pytest.mark.parametrize("name", ["config.json", "best.pt"])
def test_a_missing_file(run, name):
    (run / name).unlink()
    with pytest.raises(
        ss.SpikestrapError, match=f"{re.escape(name)}: cannot be read: No such file"
    ):
        load_run(run)


def test_no_folder(tmp_path):
    with pytest.raises(ss.SpikestrapError, match="run: expected the folder of a run, got"):
        load_run(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "config.json: expected JSON"),
        ('{"recipe": "digits', "config.json: expected JSON"),
        ("[" * 100_000, "config.json: expected JSON"),
        ("[1]", "config.json: expected a JSON object"),
        ("\ud800".encode("utf-16", "surrogatepass"), "config.json: expected JSON"),
        (b" " * 17 * 2**20, "config.json: expected a JSON object of at most"),
        ("{}", "config.json: recipe: expected a text, got None"),
    ],
)
def test_a_damaged_config(run, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (run / "config.json").write_bytes(data)
    with pytest.raises(ss.SpikestrapError, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "digits-mpl"}, "config.json: recipe: expected one of"),
        ({"time_steps": 0}, "config.json: time_steps must be a whole number from 1 to 1024, got 0"),
        ({"time_steps": 10**9}, "config.json: time_steps must be"),
        ({"seed": "x"}, "config.json: seed must be a whole number >= 0, got 'x'"),
        ({"data": 3}, "config.json: data: expected a text, got 3"),
        ({"training_precision": "8"}, "config.json: training_precision: expected one of 32-true,"),
        ({"recipe": "digits-cnn"}, "best.pt: "),
    ],
)
def test_a_config_that_does_not_fit(run, changes, message):
    edit_config(run, **changes)
    with pytest.raises(ss.SpikestrapError, match=message):
        load_run(run)


@pytest.mark.parametrize("cut", [0, 1, 100, -100, -1])
def test_truncated_weights(run, cut):
    content = (run / "best.pt").read_bytes()
    (run / "best.pt").write_bytes(content[:cut])
    with pytest.raises(ss.SpikestrapError, match=r"best.pt: expected weights as torch saves them"):
        load_run(run)


def save(run, value):
    torch.save(value, run / "best.pt")


def test_weights_that_do_not_fit(run):
    state = torch.load(run / "best.pt", weights_only=True)
    name = next(name for name, value in state.items() if value.ndim == 2)
    for changed, message in (
        ([1, 2], "expected a state dict, got list"),
        ({k: v for k, v in state.items() if k != name}, f"expected a tensor {name!r}, found none"),
        ({**state, name: state[name][:, :1]}, f"{name}: expected torch.float32 "),
        ({**state, name: state[name].double()}, f"{name}: expected torch.float32 "),
        ({**state, name: state[name] * float("nan")}, f"{name}: expected numbers, got NaN"),
        ({**state, "extra": torch.zeros(1)}, "'extra': the recipe's network has no such tensor"),
    ):
        save(run, changed)
        with pytest.raises(ss.SpikestrapError, match=r"best.pt: ") as caught:
            load_run(run)
        assert message in str(caught.value)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_run_no_code(run, tmp_path):
    save(run, {"weight": Evil(tmp_path / "ran")})
    with pytest.raises(ss.SpikestrapError, match=r"best.pt: expected weights"):
        load_run(run)
    (run / "best.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(ss.SpikestrapError, match=r"best.pt: expected weights"):
        load_run(run)
    assert not (tmp_path / "ran").exists()


def test_weights_that_unpack_to_too_much(run):
    with zipfile.ZipFile(run / "best.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(20_000_000))
    with pytest.raises(ss.SpikestrapError, match="unpacks to 20000000"):
        load_run(run)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ss.SpikestrapError, match="--out: expected a folder that can be written"
        ):
            prepare_run(path)


def test_a_run_is_taken_away_with_its_exports_and_logs_and_nothing_else(run, tmp_path):
    own = ["network.net", "network.nir", "network.onnx"]
    own += [f"logs/{name}" for name in ("events.out.tfevents.1.host.2.0", "hparams.yaml")]
    own += [f"logs/{folder}metrics.csv" for folder in ("", "resumed-1/")]
    others = ["mine.net", "logs/notes.txt", "logs/try/metrics.csv"]
    for folder in (run, tmp_path / "no run"):
        for name in own + others:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("")
        clear_run(folder)
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert left == {"config.json", *others}
    assert all((tmp_path / "no run" / name).exists() for name in own)


def test_a_link_stays_one_and_what_is_no_file_stays(tmp_path):
    target, link, pipe = (tmp_path / name for name in ("target", "link", "pipe"))
    target.write_bytes(b"old")
    link.symlink_to("target")
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    os.mkfifo(pipe)
    with pytest.raises(ss.SpikestrapError, match="pipe: cannot be written: expected a file"):
        write_file(pipe, b"new")
    assert pipe.is_fifo()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_file(path, b"old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(ss.SpikestrapError, match=r"result.json: cannot be written: No space left"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
