"""Five thousand damaged files of every format end in SpikestrapError, or in a network that runs."""

import contextlib
import copy
import json
import random
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.exchange.mutate import mutate, mutate_tree, mutate_weights, trees
from tests.exchange.test_netx import small

import spikestrap as ss
from spikestrap import block, fixed
from spikestrap.exchange import hdf5_worker, lava_dl, netx, nir
from spikestrap.train.loop import History
from spikestrap.train.models import mlp
from spikestrap.train.recipes import RECIPES, recipe
from spikestrap.train.run import load_run, save_run

# HDF5 itself is fuzzed by files; what is made of its groups and arrays by these, which is quick.
FILES = {"net": 700, "nir": 300}
TREES = {"net": 1500, "nir": 1500}
CHECKPOINTS = {"lava_dl": 600, "run": 400}
assert sum(n for part in (FILES, TREES, CHECKPOINTS) for n in part.values()) == 5000

LIF = {"threshold": 0.5, "voltage_decay": 0.1}
CUBA = {**LIF, "current_decay": 0.5, "norm": "mean_only"}


@contextlib.contextmanager
def bounded_memory():
    """A gibibyte more than now, and no more."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def images():
    """A network with every kind of node that a NIR file holds."""
    return ss.Network(
        block.lif.Input(LIF, 2.0, 0.25),
        block.lif.Conv(LIF, 2, 3, 3, delay_shift=True),
        block.AvgPool(2),
        block.integrate_fire.Pool({"threshold": 0.5}, 2, weight=0.3),
        block.Flatten(),
        block.Delay(3, 2, initial=2.0, learnable=False),
        block.cuba.Dense({**CUBA, "voltage_decay": 0.0}, 3, 5),
        block.cuba.Dense(CUBA, 5, 4),
        block.cuba.Affine(None, 4, 3),
        time_steps=4,
    )


def write(kind, folder):
    if kind == "net":
        netx.write(small(), folder / "small.net")
    else:
        nir.write(images(), folder / "small.nir", input_shape=(2, 6, 6))
    return folder / f"small.{kind}"


def network(kind, tree):
    if kind == "net":
        return netx.from_tree(tree), None
    graph = nir._graph(tree)
    return nir.from_graph(graph), nir.input_shape(graph)


def run(net, shape):
    """What was read runs: its shapes fit together."""
    if isinstance(net, fixed.Network):
        entry = net.layers[0]
        x = np.ones((1, *entry.shape))
        if max(layer.neurons for layer in net.layers) < 2**16:
            net.run(x if entry.neuron is not None else x[None].repeat(2, 0), 2)
            with contextlib.suppress(ss.SpikestrapError):  # what the chip runs need not train
                fixed.to_network(net)
    elif np.prod(shape) < 2**16:
        net.time_steps = 2
        net(torch.ones(1, *shape))


def outcome(load):
    """Whether it loads, by the only two ways that there are."""
    message = ""
    try:
        load()
    except ss.SpikestrapError as error:
        message = str(error)
    assert "\n" not in message, message
    return not message


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_damaged_hdf5_files(kind, tmp_path):
    found, refused = trees(write(kind, tmp_path).read_bytes(), FILES[kind], tmp_path)
    assert refused + len(found) == FILES[kind]
    with bounded_memory():
        read = sum(outcome(lambda tree=tree: run(*network(kind, tree))) for tree in found)
    # A changed weight is still a network; and the damage does reach the content.
    assert FILES[kind] / 20 < read < len(found) - FILES[kind] / 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", TREES)
def test_groups_and_arrays_that_are_wrong(kind, tmp_path):
    whole = hdf5_worker.parse(str(write(kind, tmp_path)), 2**26)
    assert outcome(lambda: run(*network(kind, copy.deepcopy(whole))))
    with bounded_memory():
        read = sum(
            outcome(lambda seed=seed: run(*network(kind, mutate_tree(whole, seed))))
            for seed in range(TREES[kind])
        )
    assert TREES[kind] / 20 < read < TREES[kind] / 2


@pytest.mark.slow
def test_damaged_checkpoints_of_lava_dl_change_nothing(tmp_path):
    net = ss.Network(
        block.cuba.Input(LIF),
        block.cuba.Dense({**LIF, "norm": "mean_only"}, 4, 3, weight_norm=True),
        block.cuba.Affine(None, 3, 2, bias=False),
    )
    column = (1, 1, 1)
    state = {
        "blocks.0.weight": torch.ones(1),
        "blocks.0.bias": torch.zeros(1),
        "blocks.1.synapse.weight_g": torch.rand(3, 1, *column),
        "blocks.1.synapse.weight_v": torch.rand(3, 4, *column),
        "blocks.1.neuron.norm.running_mean": torch.rand(3),
        "blocks.2.synapse.weight": torch.rand(2, 3, *column),
    }
    for number in range(2):
        state[f"blocks.{number}.neuron.current_decay"] = torch.tensor([4096.0])
        state[f"blocks.{number}.neuron.voltage_decay"] = torch.tensor([100.0])
    file, read = tmp_path / "network.pt", 0
    torch.save(state, file)
    lava_dl.load_state_dict(net, file)
    with bounded_memory():
        for seed in range(CHECKPOINTS["lava_dl"]):
            file.write_bytes(mutate_weights(state, seed))
            before = copy.deepcopy(net.state_dict())
            loaded = outcome(lambda: lava_dl.load_state_dict(net, file))
            after = net.state_dict()
            assert loaded or all(torch.equal(after[name], before[name]) for name in before)
            assert all(value.isfinite().all() for value in after.values())
            read += loaded
    assert 20 < read < CHECKPOINTS["lava_dl"] / 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")
def test_damaged_runs(tmp_path, monkeypatch):
    made_by = replace(recipe("digits-mlp"), name="tiny", build=mlp(64, 4))
    monkeypatch.setitem(RECIPES, "tiny", made_by)
    net, x = made_by.network(3), torch.rand(6, 1, 8, 8)
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT)
    history = History([], 0, {})
    save_run(tmp_path, made_by, made_by.options, 3, 7, None, net, history, {})
    weights, config = tmp_path / "best.pt", tmp_path / "config.json"
    state, text = net.state_dict(), config.read_bytes()
    read = 0

    def load():
        loaded = load_run(tmp_path).net
        loaded.time_steps = 2
        loaded(x)

    assert outcome(load)
    with bounded_memory():
        for seed in range(CHECKPOINTS["run"]):
            draw = random.Random(seed)
            config.write_bytes(mutate(text, seed) if draw.random() < 0.3 else text)
            weights.write_bytes(mutate_weights(state, seed))
            read += outcome(load)
    assert 10 < read < CHECKPOINTS["run"] / 2
    assert json.loads(text)["recipe"] == "tiny"
