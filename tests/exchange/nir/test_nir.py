"""Whole networks: written, checked, read again."""

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap import block
from spikestrap.exchange import nir as exchange
from spikestrap.exchange.nir.check import _spikes
from spikestrap.exchange.nir.interpreter import run
from spikestrap.exchange.writing import probe

CUBA = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1}
LIF = {"threshold": 0.5, "voltage_decay": 0.1}
SOFT = {"threshold": 0.5, "voltage_decay": 0.0, "reset": "subtract", "v_init": 0.25}


def mlp(neuron=CUBA, time_steps=8, **options):
    return ss.Network(
        block.cuba.Dense(neuron, 12, 10, **options),
        block.cuba.Dense(neuron, 10, 8, **options),
        block.cuba.Affine(neuron, 8, 4),
        time_steps=time_steps,
    )


def images(**options):
    thresholds = torch.tensor([1.0, 0.5, 0.25, 2.0])
    return ss.Network(
        block.lif.Input(LIF, 2.0, 0.25),
        block.lif.Conv({**LIF, "threshold": thresholds}, 2, 4, (3, 2), padding=1, groups=2),
        block.AvgPool(2, weight=3.0),
        block.lif.Conv({**LIF, "norm": "batch"}, 4, 6, 3, bias=True, weight_norm=True, **options),
        block.lif.Pool(LIF, 2),
        block.Flatten(),
        block.Dropout(0.5),
        block.lif.Affine(LIF, 6, 5),
        time_steps=4,
    )


def pooled(*behind):
    return ss.Network(
        block.lif.Conv(LIF, 2, 4, 3),
        block.AvgPool(2, weight=2.5),
        *behind,
        block.Flatten(),
        block.lif.Affine(LIF, 36, 5),
        time_steps=4,
    )


def move_norms(net):
    for module in net.modules():
        if isinstance(module, ss.norm.Norm):
            module.train()
            module(torch.rand(4, 16, module.running_mean.numel()))
    return net.eval()


CASES = {
    "mlp": (lambda: mlp(), (12,), {}),
    "weight norm, bias": (lambda: mlp(weight_norm=True, bias=True), (12,), {}),
    "with time": (lambda: mlp(time_steps=None), (12,), {}),
    "dt": (lambda: mlp(), (12,), {"dt": 0.7}),
    "soft": (lambda: mlp(SOFT), (12,), {"allow": ("reset", "v_init")}),
    "images": (lambda: images(), (2, 8, 8), {}),
    "pooled readout": (lambda: pooled(), (2, 8, 8), {}),
    "pooled, weighted and late": (
        lambda: pooled(block.Delay(4, 3, initial=2.0, learnable=False)),
        (2, 8, 8),
        {},
    ),
    "late": (lambda: images(delay_shift=True), (2, 8, 8), {}),
    "delays": (
        lambda: ss.Network(
            block.Delay(4, 3, initial=torch.arange(4) % 3, learnable=False),
            block.lif.Dense(LIF, 4, 5),
            block.Delay(5, 2, initial=1.0),
            block.lif.Affine(None, 5, 2),
        ),
        (4,),
        {"dt": 1e-3},
    ),
    "current without a leak": (lambda: mlp({**CUBA, "current_decay": 0.0}), (12,), {}),
    "membrane without a leak": (lambda: mlp({**CUBA, "voltage_decay": 0.0}), (12,), {}),
    "input": (
        lambda: ss.Network(block.lif.Input(LIF, 1.5, 0.125), block.lif.Dense(LIF, 9, 7)),
        (9,),
        {},
    ),
    "weighted pool": (
        lambda: ss.Network(block.lif.Pool(LIF, 2, kind="average", weight=3.0), time_steps=3),
        (2, 6, 6),
        {"input_shape": (2, 6, 6)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name, tmp_path):
    make, shape, options = CASES[name]
    net = move_norms(make())
    options = {"input_shape": shape, **options}
    state = {key: value.clone() for key, value in net.state_dict().items()}
    exchange.write(net, tmp_path / "net.nir", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["net.nir"]
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    again = exchange.read(tmp_path / "net.nir")
    assert again.time_steps == net.time_steps
    lead = (16,) if net.time_steps else (5, 16)
    x = 4 * torch.rand(*lead, *shape)
    out, back = net(x), again(x)
    assert out.any()
    if any(isinstance(m, ss.norm.Norm) for m in net.modules()):
        # Folding rounds; what is read is the same for good from there on.
        torch.testing.assert_close(back, out, atol=0.2, rtol=0)
        assert (back == out).float().mean() > 0.9
    else:
        assert torch.equal(back, out)
    exchange.write(again, tmp_path / "again.nir", **options)
    assert torch.equal(exchange.read(tmp_path / "again.nir")(x), back)


def test_shape_of_the_input_follows_from_the_first_dense_block():
    net = ss.Network(block.lif.Input(LIF), block.lif.Dense(LIF, 9, 7))
    assert exchange.to_graph(net).nodes["input"].input_type["input"].tolist() == [9]
    with pytest.raises(ss.SpikestrapError, match="pass input_shape"):
        exchange.to_graph(images())


def test_what_is_read_trains():
    net = exchange.from_graph(exchange.to_graph(mlp()))
    x = 4 * torch.rand(32, 12)
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_nir_reads_what_was_written(tmp_path):
    exchange.write(mlp(), tmp_path / "net.nir")
    graph = nir.read(tmp_path / "net.nir")
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert sorted(kinds) == sorted(
        ["Input", "Linear", "CubaLIF", "Linear", "CubaLIF", "Affine", "Output"]
    )
    assert graph.metadata["dt"] == 1e-4
    assert graph.metadata["time_steps"] == 8


@pytest.mark.parametrize(
    ("blocks", "shape", "message"),
    [
        ([block.lif.ConvT(LIF, 2, 2, 2)], (2, 4, 4), "block 0 .ConvT.: NIR has no node for Conv"),
        ([block.Upsample(2)], (2, 4, 4), "block 0 .Upsample.: NIR has no node for it"),
        ([block.lif.Dense({**LIF, "reset": "none"}, 4, 4)], (4,), "reset='none'"),
        ([block.lif.Dense(LIF, 4, 4)], (5,), "C = 4, got shape"),
        ([block.lif.Conv(LIF, 2, 2, 9)], (2, 4, 4), "is larger than images"),
        ([block.lif.Recurrent(LIF, 4, 4)], (4,), "block 0 .Recurrent.: it hears its own spikes"),
        ([block.Delay(3, 2)], (4,), "it delays 3 channels, its input has shape .4,"),
        ([block.lif.Input(LIF, 1.0, 0.5)], (10000,), "a matrix 10000 x 10000"),
    ],
)
def test_refused_with_the_block_and_the_reason(blocks, shape, message, tmp_path):
    with pytest.raises(ss.SpikestrapError, match=message):
        exchange.write(ss.Network(*blocks, time_steps=2), tmp_path / "x.nir", input_shape=shape)
    assert not list(tmp_path.iterdir())


def test_the_chips_integers_are_refused():
    dense = block.cuba.Dense({"threshold": 1.0}, 4, 3)
    with pytest.raises(ss.SpikestrapError, match=r"NIR's neurons are not integer ones: .*'loihi'"):
        exchange.to_graph(ss.Network(dense, precision="loihi"))


@pytest.mark.parametrize(
    "options",
    [{"dt": 0}, {"dt": "1"}, {"dt": float("nan")}, {"allow": "reset"}, {"allow": ("tau",)}]
    + [{"input_shape": shape} for shape in ((), (0,), (1, 2), (1.5,))],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ss.SpikestrapError):
        exchange.to_graph(mlp(), **options)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    net = mlp()
    with torch.no_grad():
        net.blocks[0].synapse.layer.weight[0, 0] = float("nan")
    with pytest.raises(ss.SpikestrapError, match="NaN or inf"):
        exchange.write(net, tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())


TAMPERED = {
    "threshold": lambda node: node.v_threshold.__imul__(1.1),
    "tau": lambda node: node.tau_mem.__imul__(1.2),
    "factor": lambda node: node.w_in.__imul__(1.1),
    "reset": lambda node: node.metadata.update(reset="subtract"),
    "rest": lambda node: node.v_leak.__iadd__(0.2),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_graph_that_fires_otherwise_leaves_no_file(name, tmp_path, monkeypatch):
    write = nir.write

    def tampered(path, graph):
        TAMPERED[name](graph.nodes["block1_cubalif"])
        write(path, graph)

    monkeypatch.setattr(nir, "write", tampered)
    target = tmp_path / "net.nir"
    target.write_text("as it was")
    with pytest.raises(ss.SpikestrapError, match="'block1_cubalif' does not fire as the network"):
        exchange.write(mlp(), target)
    assert [p.name for p in tmp_path.iterdir()] == ["net.nir"]
    assert target.read_text() == "as it was"


def test_a_readout_that_differs_is_found(tmp_path, monkeypatch):
    write = nir.write

    def tampered(path, graph):
        graph.nodes["block2_affine"].bias += 0.01
        write(path, graph)

    monkeypatch.setattr(nir, "write", tampered)
    with pytest.raises(ss.SpikestrapError, match="output differs"):
        exchange.write(mlp(), tmp_path / "net.nir")


def test_the_probe_makes_every_layer_fire():
    net = mlp(LIF)
    spikes, _ = _spikes(net, probe((12,)))
    assert all(0 < s.mean() < 1 for s in spikes.values())


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(
        ss.SpikestrapError, match=r"missing/net.nir: cannot be written: No such file"
    ):
        exchange.write(mlp(), tmp_path / "missing" / "net.nir")


# What other tools write.

LEAKY = {name: np.full(5, value) for name, value in {"tau": 1e-3, "r": 10.0, "v_leak": 0.0}.items()}


def lif(shape=(5,)):
    values = {name: np.full(shape, value.flat[0]) for name, value in LEAKY.items()}
    return nir.LIF(**values, v_threshold=np.ones(shape))


def chain(*nodes, **options):
    names = [str(i) for i in range(len(nodes))]
    edges = list(pairwise(names))
    made = dict(zip(names, nodes, strict=True))
    return nir.NIRGraph(nodes=made, edges=edges, type_check=False, **options)


def ends(*nodes, shape=(4,), out=(5,)):
    return chain(nir.Input(np.array(shape)), *nodes, nir.Output(np.array(out)))


WEIGHT = np.linspace(-1, 1, 20).reshape(5, 4)


def test_without_metadata():
    graph = ends(nir.Linear(WEIGHT), lif())
    net = exchange.from_graph(graph)
    assert net.time_steps is None
    neuron = net.blocks[0].unit.neuron
    assert isinstance(neuron, ss.neuron.LIF)
    assert neuron.voltage_decay.item() == pytest.approx(0.1)
    slower = exchange.from_graph(graph, dt=5e-4, time_steps=3)
    assert slower.time_steps == 3
    assert slower.blocks[0].unit.neuron.voltage_decay.item() == pytest.approx(0.5)
    # R dt / tau = 10 * 1e-3 / 2e-3 = 5 as well: the threshold of a step's input is 1 / 5.
    assert slower.blocks[0].unit.neuron.threshold.item() == pytest.approx(0.2)


def test_tensors_in_nodes_are_taken_for_arrays():
    graph = ends(nir.Affine(WEIGHT, WEIGHT[:, 0]), lif())
    expected = exchange.from_graph(graph, time_steps=4)
    affine, leaky = graph.nodes["1"], graph.nodes["2"]
    affine.weight = torch.nn.Parameter(torch.from_numpy(WEIGHT))
    affine.bias = torch.from_numpy(WEIGHT[:, 0]).to(torch.float64)
    leaky.v_threshold, leaky.v_reset = torch.tensor(1.0), torch.zeros(5, dtype=torch.bfloat16)
    found = exchange.from_graph(graph, time_steps=4)
    x = 4 * torch.rand(20, 4)
    assert expected(x).any()
    assert torch.equal(found(x), expected(x))
    assert isinstance(affine.weight, torch.Tensor)  # the graph is left as it is


def test_dt_may_be_any_real_number():
    graph = ends(nir.Linear(WEIGHT), lif())
    graph.metadata["dt"] = np.float32(5e-4)
    for net in (exchange.from_graph(graph), exchange.from_graph(graph, dt=np.float64(5e-4))):
        assert net.blocks[0].unit.neuron.voltage_decay.item() == pytest.approx(0.5)
    assert exchange.to_graph(mlp(), dt=np.float32(1e-3)).metadata["dt"] == pytest.approx(1e-3)


@pytest.mark.parametrize("compression", ["gzip", None])
def test_single_numbers_are_those_of_every_neuron(compression, tmp_path):
    numbers = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0}
    shape = (1,) if compression else ()  # HDF5 does not pack a number without axes
    single = nir.LIF(**{name: np.full(shape, value) for name, value in numbers.items()})
    graph = ends(nir.Linear(WEIGHT), single)
    nir.write(tmp_path / "net.nir", graph, compression=compression)
    x = 4 * torch.rand(6, 3, 4)
    expected = exchange.from_graph(ends(nir.Linear(WEIGHT), lif()))(x)
    assert torch.equal(exchange.read(tmp_path / "net.nir")(x), expected)
    assert torch.equal(exchange.from_graph(graph)(x), expected)


def conv(c_in=2, c_out=3, **options):
    rng = np.random.default_rng(0)
    given = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **options}
    weight = rng.normal(size=(c_out, c_in, 3, 3))
    return nir.Conv2d(input_shape=None, weight=weight, bias=rng.normal(size=c_out), **given)


def pool(cls=nir.SumPool2d):
    return cls(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))


FLATTEN = nir.Flatten({"input": np.array([3, 3, 3])}, 0, -1)
FOREIGN = {
    "neuron alone": (ends(lif(), shape=(5,)), ["Input"]),
    "scale of its own": (ends(nir.Scale(np.arange(1.0, 6)), lif(), shape=(5,)), ["Input"]),
    "two neurons": (ends(nir.Linear(WEIGHT), lif(), lif()), ["Dense", "Input"]),
    "two matrices": (
        ends(nir.Linear(WEIGHT), nir.Affine(np.eye(5), np.ones(5)), lif()),
        ["Block"],
    ),
    "pool between": (
        ends(conv(), pool(nir.AvgPool2d), lif((3, 3, 3)), shape=(2, 6, 6), out=(3, 3, 3)),
        ["Block"],
    ),
    "sum of spikes": (
        ends(
            conv(), lif((3, 6, 6)), pool(), FLATTEN, nir.Linear(np.ones((5, 27))), lif(),
            shape=(2, 6, 6),
        ),
        ["Conv", "AvgPool", "Flatten", "Dense"],
    ),
    "same": (
        ends(conv(padding="same"), lif((3, 6, 6)), shape=(2, 6, 6), out=(3, 6, 6)),
        ["Conv"],
    ),
    "pooled, scaled by numbers of their own": (
        ends(
            conv(), lif((3, 6, 6)), pool(), nir.Scale(np.arange(27.0).reshape(3, 3, 3)), FLATTEN,
            nir.Linear(np.ones((5, 27))), lif(), shape=(2, 6, 6),
        ),
        ["Conv", "AvgPool", "Block"],
    ),
    "pooled and scaled": (
        ends(
            conv(), lif((3, 6, 6)), pool(), nir.Scale(np.full((3, 3, 3), 0.3)), FLATTEN,
            nir.Linear(np.ones((5, 27))), lif(), shape=(2, 6, 6),
        ),
        ["Conv", "AvgPool", "Flatten", "Dense"],
    ),
    "spikes pooled last": (
        ends(conv(), lif((3, 6, 6)), pool(), FLATTEN, shape=(2, 6, 6), out=(27,)),
        ["Conv", "AvgPool", "Flatten"],
    ),
    "late": (
        ends(nir.Linear(WEIGHT), lif(), nir.Delay(np.full(5, 1e-4))),
        ["Dense"],
    ),
    "later": (
        ends(nir.Delay(2e-4 * np.ones(4)), nir.Linear(WEIGHT), lif(),
             nir.Delay(1e-4 * np.arange(5))),
        ["Delay", "Dense", "Delay"],
    ),
    "pooled, then late": (
        ends(
            conv(), lif((3, 6, 6)), pool(), nir.Delay(np.full((3, 3, 3), 3e-4)), FLATTEN,
            shape=(2, 6, 6), out=(27,),
        ),
        ["Conv", "AvgPool", "Delay", "Flatten"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_graphs_of_other_tools_fire_as_their_equations_say(name):
    graph, kinds = FOREIGN[name]
    net = exchange.from_graph(graph)
    assert [type(b).__name__ for b in net.blocks] == kinds
    x = torch.rand(6, 4, *graph.nodes["0"].input_type["input"].tolist())
    expected = run(graph, x, 1e-4)[0][list(graph.nodes)[-1]].mean(0)
    assert expected.any()
    torch.testing.assert_close(net(x).double(), expected, atol=1e-6, rtol=1e-6)
    # and back into NIR
    shape = tuple(graph.nodes["0"].input_type["input"].tolist())
    back = exchange.from_graph(exchange.to_graph(net, input_shape=shape))
    assert torch.equal(back(x), net(x))


def edited(edges=(), nodes=()):
    graph = ends(nir.Linear(WEIGHT), lif())
    graph.nodes.update(dict(nodes))
    graph.edges += list(edges)
    return graph


LI = nir.LI(*(np.full(5, v) for v in (1e-3, 1.0, 0.0)))
NAN = np.where(np.arange(20).reshape(5, 4) == 7, np.nan, WEIGHT)
REFUSED = {
    "cycle": (edited([("2", "1")]), "branches at node"),
    "closed cycle": (
        edited([("4", "5"), ("5", "4")], {"4": lif(), "5": lif()}.items()),
        "without a cycle",
    ),
    "branch": (edited([("1", "3")]), "branches at node '1'"),
    "dangling": (edited([("3", "9")]), "node '9', which is missing"),
    "loose node": (edited(nodes={"9": lif()}.items()), "one chain of all 5 nodes"),
    "no input": (chain(nir.Linear(WEIGHT), lif()), "expected one Input node, got 0"),
    "no output": (chain(nir.Input(np.array([4])), nir.Linear(WEIGHT), lif()), "ends at '2'"),
    "nothing": (ends(shape=(5,)), "nothing between"),
    "unknown": (ends(nir.Threshold(np.ones(4)), shape=(4,), out=(4,)), "is a Threshold"),
    "width": (ends(nir.Linear(WEIGHT.T), lif()), "weight has shape"),
    "neurons": (ends(nir.Linear(WEIGHT), lif((6,))), "parameters have shape"),
    "output": (ends(nir.Linear(WEIGHT), lif(), out=(6,)), "output has shape"),
    "nan": (ends(nir.Linear(NAN), lif()), "node '1' .Linear.: weight holds NaN"),
    "huge": (ends(nir.Linear(WEIGHT * 1e300), lif()), "weight holds NaN or inf"),
    "bias": (ends(nir.Affine(WEIGHT, np.ones(4)), lif()), "bias has shape"),
    "integrator": (ends(nir.Linear(WEIGHT), LI), "an integrator that is read out"),
    "scale read out": (ends(nir.Scale(np.ones(5)), shape=(5,)), "no neuron behind it"),
    "part of a step": (ends(lif(), nir.Delay(np.full(5, 1.5e-4)), shape=(5,)), "whole steps of dt"),
    "back in time": (ends(lif(), nir.Delay(np.full(5, -1e-4)), shape=(5,)), "whole steps of dt"),
    "long delay": (ends(lif(), nir.Delay(np.full(5, 1e6)), shape=(5,)), "at most 1048576 steps"),
    "delay of a current": (
        ends(nir.Linear(WEIGHT), nir.Delay(np.ones(5)), lif()),
        "only of spikes",
    ),
    "delays in a channel": (
        ends(nir.Delay(np.arange(4.0).reshape(1, 2, 2)), shape=(1, 2, 2), out=(1, 2, 2)),
        "one delay a channel",
    ),
    "delays": (ends(lif(), nir.Delay(np.ones(4)), shape=(5,)), "delay has shape"),
    "flat": (ends(conv(), lif()), "expected images"),
    "kernel": (
        ends(conv(padding=0), lif(), shape=(2, 2, 2)),
        "kernel .3, 3. is larger than its input",
    ),
    "stride": (ends(conv(stride=0), lif(), shape=(2, 6, 6)), "stride must be whole numbers >= 1"),
    "groups": (ends(conv(groups=2), lif(), shape=(2, 6, 6)), "in 2 groups"),
    "shape": (ends(nir.Linear(WEIGHT), lif(), shape=(-4,)), "must be whole numbers >= 1"),
    "huge shape": (ends(conv(), lif(), shape=(2, 2**40, 2**40)), "too large"),
    "many neurons": (ends(lif(()), shape=(2, 2**20, 2**20)), "has more than 16777216 values"),
    "huge padding": (ends(conv(padding=2**20), lif(()), shape=(2, 6, 6)), "more than 16777216"),
    "part": (
        ends(nir.Flatten({"input": np.array([2, 6, 6])}, 1, -1), lif(), shape=(2, 6, 6)),
        "all axes to be flattened",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_graphs_that_are_no_network_are_refused(name):
    graph, message = REFUSED[name]
    with pytest.raises(ss.SpikestrapError, match=message) as caught:
        exchange.from_graph(graph)
    assert "\n" not in str(caught.value)


def test_not_a_graph():
    with pytest.raises(ss.SpikestrapError, match="expected a NIRGraph, got LIF"):
        exchange.from_graph(lif())
    with pytest.raises(ss.SpikestrapError, match="expected a Network, got Linear"):
        exchange.to_graph(torch.nn.Linear(2, 2))
