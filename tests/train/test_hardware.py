import json
import sys

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from tests.processes import free_port, run, run_together

from spikestrap import SpikestrapError, processes
from spikestrap.train import Hardware

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"devices": 0}, "--devices must be a whole number >= 1, got 0"),
        ({"nodes": 0}, "--nodes must be a whole number >= 1, got 0"),
        ({"strategy": "fsdp"}, "--strategy: expected one of auto, ddp, .*docs/scaling.md"),
        ({"strategy": "horse"}, "--strategy: expected one of auto, ddp, got 'horse'$"),
        ({"precision": "half"}, "--precision: expected one of 32-true, .*, got 'half'$"),
        ({"precision": "bf16-true"}, "--precision: expected one of .*, got 'bf16-true'$"),
        ({"precision": "loihi"}, "--precision: .*; the chip's numbers are --chip loihi"),
    ],
)
def test_says_what_was_expected(given, message):
    with pytest.raises(SpikestrapError, match=message):
        Hardware(**given)


def test_a_loss_scaler_needs_a_gpu():
    with pytest.raises(SpikestrapError, match="16-mixed needs a GPU"):
        Hardware(precision="16-mixed").trainer_options(CPU, unused=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NTASKS": "4"}, "a process a task of the Slurm job, 4, got 2 devices on 1 nodes"),
        ({"NTASKS": "2"}, "as many as the Slurm job has, got 2 .*--ntasks-per-node=2"),
        (
            {"NTASKS": "2", "NTASKS_PER_NODE": "1"},
            "as many as the Slurm job has, got 2 .*devices=1",
        ),
    ],
)
def test_a_slurm_job_with_other_tasks_is_refused(slurm, monkeypatch, changes, message):
    for name, value in changes.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(SpikestrapError, match=f"--devices: expected {message}") as caught:
        Hardware(devices=2).check(CPU)
    assert "\n" not in str(caught.value)


def test_a_slurm_jobs_tasks_are_the_processes_where_they_are_as_many(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("RANK", "0")  # to have it away again after the test
    monkeypatch.delenv("RANK")
    found = Hardware(devices=2).environment()
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue
    assert not processes.is_first()
    # One process is one by itself, and one task starts the others.
    assert isinstance(Hardware().environment(), LightningEnvironment)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert isinstance(Hardware(devices=2).environment(), LightningEnvironment)
    monkeypatch.delenv("SLURM_NTASKS")
    assert Hardware(devices=2).environment() is None


def test_what_lightning_gets():
    assert Hardware().trainer_options(CPU, unused=False) == {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
    }
    options = Hardware(devices=2).trainer_options(torch.device("cuda"), unused=True)
    assert options["accelerator"] == "gpu"
    assert isinstance(options["strategy"], DDPStrategy)
    assert options["strategy"]._ddp_kwargs["find_unused_parameters"] is True


def test_a_training_goes_on_in_the_precision_in_which_it_began():
    assert Hardware(devices=2).going_on("bf16-mixed") == Hardware(2, precision="bf16-mixed")
    assert Hardware(precision="bf16-mixed").going_on("bf16-mixed").precision == "bf16-mixed"
    # A run of an early version does not say.
    assert Hardware(precision="bf16-mixed").going_on(None).precision == "bf16-mixed"
    assert Hardware().going_on(None).training_precision == "32-true"
    with pytest.raises(SpikestrapError, match=r"--precision: expected bf16-mixed, .*got '32-true'"):
        Hardware(precision="32-true").going_on("bf16-mixed")


TRAINING = """
import sys, torch
import spikestrap as ss
from spikestrap import processes
from spikestrap.train import Hardware, Options, fit
from spikestrap.train.data import Arrays, Splits
if __name__ == "__main__":
    torch.manual_seed(0)
    neuron = dict(threshold=1.0, voltage_decay=0.0, reset="subtract", v_init=0.5)
    net = ss.Network(
        ss.block.Flatten(),
        ss.block.cuba.Dense(dict(neuron, norm="batch"), 16, 12),
        ss.block.cuba.Dense(dict(neuron, norm="mean_only"), 12, 12, weight_norm=True),
        ss.block.cuba.Affine(None, 12, 3),
        time_steps=4,
    )
    x, y = torch.rand(60, 1, 4, 4), torch.arange(60) % 3
    splits = Splits("toy", 3, Arrays(x, y), Arrays(x, y), None)
    # Of batches of 15 one process gets 8 and the other 7.
    options = Options(
        epochs=3, batch_size=15, learning_rate=1e-3, num_sample_iter=1, sample_period=2,
        snn_epochs=1, snn_gradient="rate",
    )
    fit(net, splits, options, hardware=Hardware(devices=int(sys.argv[1])))
    if processes.is_first():
        torch.save(net.state_dict(), sys.argv[2])
"""


def test_two_processes_train_what_one_would(tmp_path):
    """With norms that go by statistics of the batch."""
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    found = []
    for devices in (1, 2):
        state = tmp_path / f"{devices}.pt"
        done = run(sys.executable, script, devices, state)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(state))
    one, two = found
    for name, value in one.items():
        if not name.endswith("statistics"):
            torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_nodes(tmp_path):
    """Two machines, here the same one: each runs the command, the first one prints."""
    script = "from spikestrap.cli import main; main()"
    arguments = ["train", "--nodes", "2", "--epochs", "2", "--time-steps", "2", "--json"]
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-c", script, *arguments, "--out", tmp_path]
    first, second = run_together(
        [(command, {"NODE_RANK": str(node), **where}) for node in range(2)]
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert json.loads(first.stdout.splitlines()[-1])["snn_accuracy"] > 50
    assert [line.split("  ")[0] for line in first.stderr.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert second.stdout == second.stderr == ""
