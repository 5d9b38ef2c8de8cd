import contextlib
import shutil

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import chip
from tests.exchange.mutate import mutate
from tests.fixed.cases import random_layers, random_neuron

import spikestrap as ss
from spikestrap import block, fixed
from spikestrap.exchange import hdf5_worker, netx

LIF = fixed.Neuron(np.array(64))


def small():
    """A network with every kind of layer that a file holds."""
    draw = np.random.default_rng(0)
    neuron = fixed.Neuron(np.array(80), np.array(4000), np.array(123))
    return fixed.Network(
        [
            fixed.Input((2, 5, 5), LIF, weight=76, bias=64),
            fixed.Conv(
                (3, 2, 2), neuron, None, 2 * draw.integers(-99, 99, (3, 2, 3, 3)),
                np.array([4, -6, 0]), stride=(2, 2),
            ),
            fixed.Flatten((12,)),
            fixed.Dense((4,), neuron, None, 2 * draw.integers(-99, 99, (4, 12)), None,
                        2 * draw.integers(-9, 9, (4, 4))),
            fixed.Dense((4,), neuron, np.array([0, 2, 1, 3]), 2 * draw.integers(-99, 99, (4, 4))),
            fixed.Dense((3,), None, None, 2 * draw.integers(-99, 99, (3, 4)), np.array([1, 2, 3])),
        ],
        pipelined=True,
        time_steps=6,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.net"
    netx.write(small(), path)
    return path


def same(a, b):
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, fixed.Neuron | fixed.Layer):
        return type(a) is type(b) and all(same(v, vars(b)[k]) for k, v in vars(a).items())
    return a == b


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_again(seed, tmp_path_factory):
    net = random_layers(seed, exportable=True)
    path = tmp_path_factory.getbasetemp() / "again.net"
    netx.write(net, path)
    again = netx.from_tree(hdf5_worker.parse(str(path), 2**26))
    assert (again.pipelined, again.time_steps) == (net.pipelined, net.time_steps)
    for ours, read in zip(net.layers, again.layers, strict=True):
        if ours.delay is not None:  # written once a channel, or, where there is none, not at all
            late = np.broadcast_to(ours.delay, ours.shape[0]) if ours.delay.any() else None
            ours = type(ours)(**{**vars(ours), "delay": late})
        assert same(ours, read)


def test_types_and_names_are_those_of_lava_dl(path):
    with h5py.File(path) as file:
        layer = file["layer/1"]
        assert layer["type"].dtype == "S10"
        assert layer["type"].shape == (1,)
        assert layer["type"][0] == b"conv"
        assert layer["weight"].dtype == np.float32
        assert layer["shape"][()].tolist() == [3, 2, 2]
        assert layer["stride"][()].tolist() == [2, 2]
        assert layer["padding"][()].tolist() == [0, 0]
        assert layer["dilation"][()].tolist() == [1, 1]
        neuron = layer["neuron"]
        assert neuron["type"][()] == b"CUBA"
        numbers = {key: int(neuron[key][()]) for key in ("iDecay", "vDecay", "vThMant", "refDelay")}
        assert numbers == {"iDecay": 4000, "vDecay": 123, "vThMant": 80, "refDelay": 1}
        assert file["layer/3/type"][0] == b"dense_rec"
        assert "neuron" not in file["layer/5"]
        assert file["simulation/tSample"][()] == 6


def with_neuron(**values):
    values = {"threshold": np.array(64), **values}
    return fixed.Network([fixed.Input((2,), fixed.Neuron(**values))])


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (
            with_neuron(reset="subtract"),
            "layer 0 .Input.: .*Lava's LIF resets to zero; got.*mlp-loihi do",
        ),
        (with_neuron(v_init=np.array(5)), "starts every membrane at 0"),
        (with_neuron(threshold=np.array([3, 4])), "one threshold for all neurons"),
        (with_neuron(voltage_decay=np.array(4096)), "register holds 0 to 4095"),
        (with_neuron(current_decay=np.array(0)), "register holds 1 to 4096"),
        (
            fixed.Network(
                [fixed.Input((1, 3, 3)), fixed.Conv((1, 3, 3), weight=np.ones((1, 1, 1, 1)))]
            ),
            "only with a neuron",
        ),
    ],
)
def test_what_netx_cannot_load_is_refused_and_no_file_left(net, reason, tmp_path):
    with pytest.raises(ss.SpikestrapError, match=reason):
        netx.write(net, tmp_path / "x.net")
    assert list(tmp_path.iterdir()) == []


PIXELS, LATE = fixed.Input((2, 1, 1), LIF), np.array(3)
KERNEL, ROW = np.ones((1, 2, 1, 1)), np.ones((1, 2))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (
            [fixed.Input((2,), LIF, np.array([0, 3]))],
            r"layer 0 \(Input\): .*of Dense blocks alone: got a delay of up to 3 steps",
        ),
        (
            [fixed.Input((2,), None, LATE)],
            r"layer 0 \(Input\): .*Dense blocks alone.*Put the Delay behind a Dense block without",
        ),
        (
            [PIXELS, fixed.Conv((1, 1, 1), LIF, LATE, KERNEL)],
            r"layer 1 \(Conv\): .*of Dense blocks alone.*or run it by fixed.from_network",
        ),
        (
            [PIXELS, fixed.Dense((1,), LIF, LATE, ROW, np.array([5]))],
            r"layer 1 \(Dense\): .*but not its bias or norm: got a delay of up to 3 steps",
        ),
        (
            [PIXELS, fixed.Dense((1,), LIF, LATE, ROW, None, np.ones((1, 1)))],
            r"layer 1 \(Dense\): .*a Recurrent block hears of itself as well: got a delay of up to",
        ),
        ([PIXELS, fixed.Dense((1,), None, LATE, ROW)], r"layer 1 \(Dense\): .*the spikes of"),
    ],
)
def test_delays_that_netx_leaves_out_or_misplaces_are_refused(made, reason, tmp_path):
    with pytest.raises(ss.SpikestrapError, match=reason):
        netx.write(fixed.Network(made), tmp_path / "x.net")
    assert list(tmp_path.iterdir()) == []


def test_a_delay_of_no_steps_is_not_written(tmp_path):
    """With one, netx leaves the weights' exponent of a dense_rec out."""
    neuron = {"threshold": 1.0}
    net = ss.Network(
        block.cuba.Input(neuron),
        block.Delay(2, 3),
        block.cuba.Recurrent(neuron, 2, 4, delay=2),
        block.cuba.Dense(neuron, 4, 3),
        block.Delay(3, 2),
        time_steps=4,
        precision="loihi",
    )
    ss.save(net, tmp_path / "x.net")
    with h5py.File(tmp_path / "x.net") as file:
        assert file["layer/1/type"][0] == b"dense_rec"
        assert not [number for number in file["layer"] if "delay" in file["layer"][number]]
    torch.nn.init.constant_(net.blocks[2].delay.delay, 1.0)
    with pytest.raises(ss.SpikestrapError, match=r"layer 1 .* got a delay of up to 1 steps"):
        ss.save(net, tmp_path / "x.net")


def as_netx(layer, spikes):
    """Spikes of a dense layer as netx runs it: its delay is that of all that goes into a neuron."""
    steps = [0] * layer.neurons if layer.delay is None else layer.delay.tolist()
    fired = []
    for row, delay, rule in zip(layer.weight.tolist(), steps, chip.rules_of(layer), strict=True):
        state, sent = [0, 0], []
        for t in range(len(spikes)):
            heard = spikes[t - delay] if t >= delay else [0] * len(row)
            a = sum(w * s for w, s in zip(row, heard, strict=True))
            sent.append(chip.neuron_step(state, a, 0, rule))
        fired.append(sent)
    return [list(step) for step in zip(*fired, strict=True)]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_delays_that_are_written_are_those_of_netx(seed, tmp_path_factory):
    draw = np.random.default_rng(seed)
    made = fixed.Dense(
        (4,), random_neuron(draw, exportable=True), draw.integers(0, 4, 4),
        2 * draw.integers(-99, 99, (4, 5)), np.zeros(4),
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "late.net"
    netx.write(fixed.Network([fixed.Input((5,)), made]), path)
    read = netx.from_tree(hdf5_worker.parse(str(path), 2**26)).layers[1]
    x = draw.integers(0, 2, (9, 1, 5))
    spikes = fixed.Network([fixed.Input((5,)), made]).spikes(x)[1][:, 0].tolist()
    assert as_netx(read, x[:, 0].tolist()) == spikes


def test_exporting_changes_nothing(tmp_path):
    neuron = {"threshold": 1.0, "norm": "batch"}
    net = ss.Network(
        block.cuba.Input({"threshold": 1.0}),
        block.cuba.Dense(neuron, 4, 3, weight_norm=True),
        block.cuba.Affine(None, 3, 2),
        time_steps=4,
        precision="loihi",
    ).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    ss.save(net, tmp_path / "x.net")
    assert net.training
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before)


def damage(path, name, value):
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layer", None, r"small.net: layer: expected, but not there"),
        ("layer", 3.0, "layer: expected a group"),
        ("layer/2", None, "layer/2: expected a group, but not there"),
        ("layer/1/type", None, "layer/1: type: expected, but not there"),
        ("layer/1/type", "pool", "layer/1: expected a layer of type input, dense, .*got 'pool'"),
        ("layer/1/type", 7, "type: expected a text"),
        ("layer/1/type", "input", "an input can only be the first layer"),
        ("layer/1/weight", np.full((3, 2, 3, 3), np.nan), "weight: expected finite numbers"),
        ("layer/1/weight", np.ones((3, 2, 3)), r"weight: expected 4 axes and 3 rows, got shape"),
        ("layer/1/weight", np.full((3, 2, 3, 3), 300.0), "weight: expected numbers from -256"),
        ("layer/1/weight", "heavy", "weight: expected numbers"),
        ("layer/1/stride", np.array([0, 1]), "stride: expected numbers from 1"),
        ("layer/1/shape", np.array([3, 9, 9]), r"layer 1 \(Conv\): from \(2, 5, 5\) its output is"),
        ("layer/1/shape", np.array([3, -1, 9]), r"shape: expected \(C,\) or \(C, H, W\)"),
        ("layer/1/groups", 2, "groups must divide"),
        ("layer/1/bias", np.ones(2), "bias: expected 1 or 3 values, got 2"),
        ("layer/1/neuron", None, r"layer 1 \(Conv\): only the last may lack a neuron"),
        ("layer/1/neuron/type", "SDNN", "expected a neuron of type CUBA or LOIHI, got 'SDNN'"),
        ("layer/1/neuron/vThMant", 0, "threshold: expected numbers from 1"),
        ("layer/1/neuron/iDecay", 5000, "current_decay: expected numbers from 0 to 4096"),
        ("layer/1/neuron/iDecay", 10.5, "current_decay: expected whole numbers"),
        ("layer/1/neuron/gradedSpike", True, "gradedSpike: expected 0, got 1"),
        ("layer/1/neuron/refDelay", 3, "refDelay: expected 1, got 3"),
        ("layer/3/weight_rec", None, "weight_rec: expected, but not there"),
        ("layer/5/weight", np.ones((3, 7)), r"layer 5 \(Dense\): weight takes 7 inputs"),
        ("layer/0/weight", np.ones(3), "weight: expected one number"),
    ],
)  # fmt: skip
def test_bad_content_is_refused_with_its_place(path, name, value, message):
    damage(path, name, value)
    with pytest.raises(ss.SpikestrapError, match=message) as caught:
        netx.read(path)
    assert "\n" not in str(caught.value)


def test_bad_files_are_refused(path, tmp_path):
    (tmp_path / "text.net").write_text("no HDF5")
    (tmp_path / "cut.net").write_bytes(path.read_bytes()[:5000])
    for name, message in (
        ("none.net", "none.net: cannot be read: No such file"),
        ("text.net", "text.net: not a readable HDF5 file"),
        ("cut.net", "cut.net: not a readable HDF5 file"),
    ):
        with pytest.raises(ss.SpikestrapError, match=message):
            netx.read(tmp_path / name)


def test_huge_and_linked_data_sets_are_refused_unread(path, tmp_path):
    bomb, linked = tmp_path / "bomb.net", tmp_path / "linked.net"
    shutil.copy(path, bomb)
    shutil.copy(path, linked)
    with h5py.File(bomb, "r+") as file:
        del file["layer/3/weight"]
        file["layer/3"].create_dataset("weight", (2**40, 2**20), "f4", chunks=(64, 64))
    with h5py.File(linked, "r+") as file:
        del file["layer/3/weight"]
        file["layer/3/weight"] = h5py.ExternalLink(str(path), "/layer/3/weight")
    with pytest.raises(ss.SpikestrapError, match=r"weight declares .* bytes"):
        netx.read(bomb)
    with pytest.raises(ss.SpikestrapError, match="is a link elsewhere"):
        netx.read(linked)


def test_a_dense_layer_first_takes_spikes(tmp_path):
    net = fixed.Network([fixed.Input((2,)), fixed.Dense((1,), LIF, weight=np.full((1, 2), 100))])
    netx.write(net, tmp_path / "x.net")
    damage(tmp_path / "x.net", "layer/0", None)
    with h5py.File(tmp_path / "x.net", "r+") as file:
        file.move("layer/1", "layer/0")
    x = np.ones((3, 1, 2))
    again = netx.read(tmp_path / "x.net")
    assert again.spikes(x, 3)[1].flatten().tolist() == net.spikes(x, 3)[1].flatten().tolist()


def test_a_damaged_file_is_read_in_bounds_of_time(path, tmp_path):
    content, broken = path.read_bytes(), tmp_path / "broken.net"
    for seed in range(5):
        broken.write_bytes(mutate(content, seed))
        with contextlib.suppress(ss.SpikestrapError):
            netx.read(broken)
