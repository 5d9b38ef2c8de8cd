import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from benchmarks.kills import differing, state
from tests.processes import environment, run
from torch.utils.data import DataLoader, TensorDataset

import spikestrap as ss
from spikestrap.train import BootstrapCallback, Checkpoints, WholeFiles, checkpoint, load_run
from spikestrap.train.run import BEFORE, NEWEST, load_config

COMMAND = [sys.executable, "-c", "from spikestrap.cli import main; main()", "train"]
ARGUMENTS = ["--epochs", "4", "--time-steps", "3", "--batch-size", "150", "--seed", "5"]


def spikestrap_train(*arguments):
    return run(*COMMAND, *arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing cut off."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = spikestrap_train(*ARGUMENTS, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("tasks", ["1", "4"])
def test_in_a_slurm_job_nothing_of_another_training_is_loaded(whole, tmp_path, slurm, tasks):
    out, job = tmp_path / "run", {"SLURM_NTASKS": tasks}
    done = run(*COMMAND, *ARGUMENTS, "--out", out, **job)
    assert (done.returncode, done.stderr.count("\n")) == (0, 4), done.stderr
    assert list(differing(state(whole), state(out))) == []
    evaluated = run(*COMMAND[:-1], "evaluate", out, "--json", **job)
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    expected = json.loads((whole / "result.json").read_text())
    assert json.loads(evaluated.stdout)["snn_accuracy"] == expected["snn_accuracy"]


def killed_after(epochs, out, *more, by=signal.SIGKILL):
    """Killed once so many epochs were told; at which moment after that is for the machine.

    Gives the exit code and what else it said.
    """
    running = subprocess.Popen(
        [*COMMAND, *ARGUMENTS, "--out", str(out), *more],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # What runs in a shell's background ignores it, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(epochs):
        assert running.stderr.readline().startswith("epoch")
    running.send_signal(by)
    said = running.communicate()[1]
    return running.returncode, said


@pytest.mark.parametrize("epochs", [1, 3])
def test_killed_and_resumed_is_as_if_it_was_not(whole, tmp_path, epochs):
    out = tmp_path / "run"
    killed_after(epochs, out)
    assert not (out / "best.pt").exists()
    if epochs == 3:
        with pytest.raises(ss.SpikestrapError, match=f"train --resume {out}"):
            load_run(out)
    done = spikestrap_train("--resume", out)
    assert done.returncode == 0, done.stderr
    assert list(differing(state(whole), state(out))) == []


def test_a_damaged_newest_one_is_named_and_the_one_before_it_used(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    newest = out / NEWEST
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = spikestrap_train("--resume", out)
    assert done.returncode == 0, done.stderr
    assert f"warning: {newest}: damaged (" in done.stderr
    assert f"going on from the one before it, {out / BEFORE}" in done.stderr
    assert list(differing(state(whole), state(out))) == []


def test_a_finished_one_resumed_does_nothing_more(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    done = spikestrap_train("--resume", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(differing(state(whole), state(out))) == []


def test_it_goes_on_in_its_own_precision(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    halves = ("--precision", "bf16-mixed")
    done = spikestrap_train(*ARGUMENTS, *halves, "--out", whole)
    assert done.returncode == 0, done.stderr
    killed_after(1, out, *halves)
    refused = spikestrap_train("--resume", out, "--precision", "32-true")
    assert refused.returncode == 1
    assert "error: --precision: expected bf16-mixed, in which the training" in refused.stderr
    done = spikestrap_train("--resume", out)
    assert done.returncode == 0, done.stderr
    assert list(differing(state(whole), state(out))) == []


class TestChoice:
    def write(self, folder, name, value=1.0):
        WholeFiles().save_checkpoint({"x": torch.full((100,), value)}, folder / name)

    def test_none_at_all(self, tmp_path):
        assert Checkpoints(tmp_path).newest() is Checkpoints(str(tmp_path)).newest() is None

    def test_the_newest(self, tmp_path):
        self.write(tmp_path, BEFORE)
        assert Checkpoints(tmp_path).newest() == tmp_path / BEFORE
        self.write(tmp_path, NEWEST)
        assert Checkpoints(tmp_path).newest() == tmp_path / NEWEST

    @pytest.mark.parametrize("cut", [0, 10, -1])
    def test_a_cut_off_one_is_not_taken(self, tmp_path, cut):
        self.write(tmp_path, BEFORE)
        self.write(tmp_path, NEWEST)
        path = tmp_path / NEWEST
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.warns(ss.SpikestrapWarning, match=f"{NEWEST}: damaged"):
            assert Checkpoints(tmp_path).newest() == tmp_path / BEFORE

    def test_all_damaged(self, tmp_path):
        for name in (NEWEST, BEFORE):
            (tmp_path / name).write_bytes(b"no checkpoint")
        with pytest.raises(ss.SpikestrapError, match=f"{NEWEST}: damaged.*{BEFORE}: damaged"):
            Checkpoints(tmp_path).newest()


class TestWholeFiles:
    def test_a_failed_write_leaves_the_old_one_and_no_other(self, tmp_path):
        path = tmp_path / NEWEST
        WholeFiles().save_checkpoint({"x": 1}, path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(ss.SpikestrapError, match=f"{NEWEST}: cannot be written: File too"):
                WholeFiles().save_checkpoint({"x": torch.rand(10_000)}, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == [path]
        assert WholeFiles().load_checkpoint(path) == {"x": 1}

    def test_runs_no_code(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        torch.save({"x": Evil()}, tmp_path / NEWEST)
        with pytest.raises(ss.SpikestrapError, match=f"{NEWEST}: expected a checkpoint, got what"):
            WholeFiles().load_checkpoint(tmp_path / NEWEST)
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_fails_and_can_go_on(tmp_path, by):
    code, said = killed_after(1, tmp_path / "run", "--epochs", "100", by=by)
    assert code == 1
    assert said.splitlines()[-1].startswith("error: stopped before its end; spikestrap train --res")
    assert load_config(tmp_path / "run").options.epochs == 100


def test_in_a_slurm_job_signals_do_the_same_and_write_nothing(tmp_path, slurm):
    code, said = killed_after(1, tmp_path / "run", "--epochs", "100", by=signal.SIGTERM)
    assert code == 1
    assert said.splitlines()[-1].startswith("error: stopped before its end; spikestrap train --res")
    code, _ = killed_after(1, tmp_path / "run", "--epochs", "100", by=signal.SIGUSR1)
    assert code == -signal.SIGUSR1
    assert [path.name for path in slurm.iterdir()] == ["hpc_ckpt_1.ckpt"]


def test_a_new_training_cut_off_in_an_old_ones_folder_is_not_taken_for_it(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "own.ckpt").write_text("the user's")
    killed_after(2, out, "--seed", "6")
    assert (out / "own.ckpt").read_text() == "the user's"
    assert not {"best.pt", "result.json", "report.html"} & {path.name for path in out.iterdir()}
    with pytest.raises(ss.SpikestrapError, match=r"cut off|cannot be read"):
        load_run(out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU refuses nothing")
def test_an_old_run_stays_where_the_new_training_is_refused(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    done = spikestrap_train("--out", out, "--precision", "16-mixed")
    assert "16-mixed needs a GPU" in done.stderr
    assert list(differing(state(whole), state(out))) == []


@pytest.mark.parametrize("name", ["config.json", "last.ckpt", "report.html"])
def test_a_folder_with_such_a_file_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("{}")
    done = spikestrap_train(*ARGUMENTS, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"expected a new folder or that of a run, got {tmp_path}, whose {name} is" in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "{}")]


def test_a_checkpoint_of_another_network_is_refused(whole, tmp_path):
    out, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(whole, out)
    done = spikestrap_train("digits-cnn", "--epochs", "1", "--out", other)
    assert done.returncode == 0, done.stderr
    shutil.copy(other / NEWEST, out / NEWEST)
    done = spikestrap_train("--resume", out)
    assert done.returncode == 1
    assert "error: checkpoint: expected one of this training" in done.stderr


def test_a_log_is_kept_when_the_training_goes_on(tmp_path):
    out = tmp_path / "run"
    killed_after(2, out, "--logger", "csv")
    log = out / "logs" / "metrics.csv"
    log.parent.mkdir(exist_ok=True)
    log.write_text("what was logged before it was killed")
    done = spikestrap_train("--resume", out, "--logger", "csv")
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "what was logged before it was killed"
    assert "snn_accuracy" in (out / "logs" / "resumed-1" / "metrics.csv").read_text()


class TestOwnTrainer:
    """A module, a Trainer and a DataLoader as one writes them, after docs/scaling.md."""

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            neuron = {"threshold": 1.0, "voltage_decay": 0.0, "reset": "subtract", "v_init": 0.5}
            dense = partial(ss.block.cuba.Dense, {**neuron, "norm": "batch", "dropout": 0.2})
            affine = ss.block.cuba.Affine(neuron, 16, 3)
            self.net = ss.Network(dense(8, 16), affine, time_steps=4)
            self.dies_at = None

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            if (self.trainer.current_epoch, batch_idx) == self.dies_at:
                raise KeyError("dies")
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    def trained(self, folder, *, dies_at=None, validated=True, shuffle=True, **options):
        folder.mkdir(exist_ok=True)
        checkpoints = Checkpoints(folder)
        module = self.Module()
        module.dies_at = dies_at
        torch.manual_seed(1)
        x = torch.rand(60, 8, generator=torch.Generator().manual_seed(2))
        data = TensorDataset(x, torch.arange(60) % 3)
        train, validation = DataLoader(data, 10, shuffle=shuffle), DataLoader(data, 30)
        bootstrap = BootstrapCallback(ss.Scheduler(num_sample_iter=2, sample_period=2))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer = pl.Trainer(
                callbacks=[bootstrap, checkpoints],
                plugins=[WholeFiles()],
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                **{"max_epochs": 4, **options},
            )
            trainer.fit(
                module, train, validation if validated else None, ckpt_path=checkpoints.newest()
            )
        return module.state_dict()

    @pytest.mark.parametrize(
        "options",
        [{}, {"validated": False}, {"shuffle": False}, {"accumulate_grad_batches": 4}],
    )
    @pytest.mark.parametrize("dies_at", [(1, 3), (3, 0)])
    def test_resumed_is_as_if_it_was_not_cut_off(self, tmp_path, monkeypatch, options, dies_at):
        monkeypatch.setattr(checkpoint, "_SHARE", float("inf"))  # each epoch is saved
        whole = self.trained(tmp_path / "whole", **options)
        with pytest.raises(KeyError, match="dies"):
            self.trained(tmp_path / "cut", dies_at=dies_at, **options)
        resumed = self.trained(tmp_path / "cut", **options)
        for name, value in whole.items():
            torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)

    @pytest.mark.parametrize(("steps", "epochs"), [(20, -1), (24, -1), (100, 3)])
    def test_the_last_epoch_is_saved_whatever_ends_it(self, tmp_path, monkeypatch, steps, epochs):
        monkeypatch.setattr(checkpoint, "_SHARE", -1.0)  # none is saved for the time it took
        self.trained(tmp_path, max_steps=steps, max_epochs=epochs)
        saved = WholeFiles().load_checkpoint(tmp_path / NEWEST)
        assert saved["global_step"] == min(steps, 3 * 6 if epochs == 3 else steps)
