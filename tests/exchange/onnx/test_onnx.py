import sys

import numpy as np
import onnx
import onnx.reference
import pytest
import torch

import spikestrap as ss
from spikestrap import block
from spikestrap.exchange import onnx as exchange
from spikestrap.exchange.onnx import nodes

LIF = {"threshold": 0.5, "voltage_decay": 0.1}


def fitted(net, x):
    for _ in range(3):
        net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT)
    return net.eval()


def mlp(**sampler):
    neuron = {**LIF, "sampler": sampler}
    return ss.Network(
        block.lif.Input(neuron, 2.0, 0.25),
        block.lif.Dense({**neuron, "norm": "batch"}, 12, 10, bias=True),
        block.Dropout(0.5),
        block.lif.Dense(neuron, 10, 8, weight_norm=True),
        block.lif.Affine(neuron, 8, 4),
        time_steps=8,
    )


def images(**sampler):
    neuron = {**LIF, "sampler": sampler}
    return ss.Network(
        block.lif.Conv({**neuron, "norm": "mean_only"}, 2, 4, (3, 2), padding=1, groups=2),
        block.lif.Pool({**LIF}, 2, weight=0.5),
        block.Upsample(2),
        block.lif.ConvT({**neuron, "norm": "batch"}, 4, 3, 2, stride=2, bias=True, count_log=True),
        block.AvgPool(2, padding=1, weight=1.5),
        block.Flatten(),
        block.lif.Affine(None, 3 * 5 * 7, 5),
        time_steps=4,
    )


CASES = {"mlp": (mlp, (12,)), "images": (images, (2, 5, 5))}


def run(path, x):
    (logits,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"input": x.numpy()})
    return torch.tensor(logits)


@pytest.mark.parametrize("rounding", [False, True])
@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize("name", CASES)
def test_the_file_gives_the_logits_of_ann_mode(name, per, rounding, tmp_path):
    make, shape = CASES[name]
    net = make(per=per, rounding=rounding) if name == "images" else make(rounding=rounding)
    x = 2 * torch.rand(32, *shape)
    fitted(net, x)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    exchange.write(net, tmp_path / "net.onnx", input_shape=shape)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
    with torch.no_grad():
        expected = net(x, ss.Mode.ANN)
    expected = expected[0] if isinstance(expected, tuple) else expected
    off = (run(tmp_path / "net.onnx", x) - expected).abs()
    # Where the curve rounds, a rate halfway between two may go to either side.
    assert (off < 1e-4).float().mean() > (0.95 if rounding else 0.9999)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_in_words(padding, tmp_path):
    net = ss.Network(
        block.lif.Conv(LIF, 2, 4, (2, 5), padding=padding, dilation=(3, 1), weight_scale=3.0),
        time_steps=4,
    )
    x = 2 * torch.rand(32, 2, 9, 9)
    fitted(net, x)
    exchange.write(net, tmp_path / "net.onnx", input_shape=(2, 9, 9))
    with torch.no_grad():
        off = (run(tmp_path / "net.onnx", x) - net(x, ss.Mode.ANN)).abs()
    assert (off < 1e-4).float().mean() > 0.95


def on_chip(pool, steps):
    return ss.Network(
        block.cuba.Input(LIF, 2.0, 0.25),
        block.AvgPool(pool, padding=1),
        block.cuba.Conv({**LIF, "norm": "batch"}, 2, 4, 3, padding=1, weight_scale=3.0),
        block.cuba.Pool(LIF, 2, weight=0.5),
        block.Flatten(),
        block.cuba.Dense(LIF, 16 if pool == 2 else 4, 8, bias=True, weight_scale=3.0),
        block.Dropout(0.1),
        block.cuba.Affine(None, 8, 5),
        time_steps=steps,
        precision="loihi",
    )


@pytest.mark.parametrize(("pool", "steps"), [(2, 4), (3, 8), (3, 5)])
def test_at_the_chips_precision_too(pool, steps, tmp_path):
    net = on_chip(pool, steps)
    x = 2 * torch.rand(64, 2, 7, 7)
    fitted(net, x)
    exchange.write(net, tmp_path / "net.onnx", input_shape=(2, 7, 7))
    expected, got = net(x, ss.Mode.ANN), run(tmp_path / "net.onnx", x)
    if steps == 5:  # fifths have no end in binary, so sums depend on their order
        assert ((got - expected).abs() < 1e-4).float().mean() > 0.95
    else:
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert expected.std(0).min() > 0


def test_samples_that_no_fit_has_used_are_fitted_for_the_file(tmp_path):
    net, x = mlp(), 2 * torch.rand(64, 12)
    net(x, ss.Mode.SAMPLE)
    exchange.write(net, tmp_path / "net.onnx")
    assert net.blocks[0].unit.sampler.pending
    net.eval()
    assert (run(tmp_path / "net.onnx", x) - net(x, ss.Mode.ANN)).abs().median() < 1e-4


def test_before_any_fit(tmp_path):
    with pytest.raises(ss.NotFittedError, match=r"block 0 .Input.: ANN mode before any fit"):
        exchange.write(mlp(), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ss.SpikestrapError, match=r"pip install 'spikestrap\[onnx\]'"):
        exchange.write(mlp(), tmp_path / "net.onnx")


def test_a_file_that_differs_is_not_left(tmp_path, monkeypatch):
    net = fitted(mlp(), 2 * torch.rand(64, 12))
    numbers = nodes.numbers
    monkeypatch.setattr(nodes, "numbers", lambda v: np.float32(1.1) * numbers(v))
    with pytest.raises(ss.SpikestrapError, match=r"what block 0 .Input. gives in the file differs"):
        exchange.write(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_beyond_what_protobuf_holds_is_refused(tmp_path, monkeypatch):
    net = fitted(mlp(), 2 * torch.rand(64, 12))
    monkeypatch.setattr(exchange, "_MAX_BYTES", 1000)
    with pytest.raises(ss.SpikestrapError, match="a file holds at most 1000 bytes; got"):
        exchange.write(net, tmp_path / "net.onnx")


def test_save_writes_it_and_load_does_not_read_it(tmp_path):
    path = tmp_path / "net.onnx"
    ss.save(fitted(mlp(), 2 * torch.rand(64, 12)), path)
    assert path.is_file()
    with pytest.raises(ss.SpikestrapError, match=r"ends in .net or .nir, got '.onnx'"):
        ss.load(path)
    with pytest.raises(ss.SpikestrapError, match=r"a .onnx file takes no option 'dt'"):
        ss.save(mlp(), path, dt=1e-3)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([block.lif.Recurrent(LIF, 4, 3)], "block 0 .Recurrent.: SelfDriven cannot be bootstrap"),
        ([block.Delay(4, 2)], "block 0 .Delay.: .*rates have no time to delay in"),
    ],
)
def test_what_has_no_curve_is_refused(blocks, message, tmp_path):
    with pytest.raises(ss.SpikestrapError, match=message):
        exchange.write(ss.Network(*blocks), tmp_path / "net.onnx", input_shape=(4,))


def test_refused(tmp_path):
    net = fitted(mlp(), 2 * torch.rand(64, 12))
    for options, message in (
        ({"input_shape": (5,)}, "block 1 .Dense.*C = 12, got shape"),
        ({"input_shape": (1, 2)}, "must be .C,. or"),
    ):
        with pytest.raises(ss.SpikestrapError, match=message):
            exchange.write(net, tmp_path / "net.onnx", **options)
    with pytest.raises(ss.SpikestrapError, match="pass input_shape"):
        exchange.write(images(), tmp_path / "net.onnx")
    with pytest.raises(ss.SpikestrapError, match="expected a Network, got Linear"):
        exchange.write(torch.nn.Linear(2, 2), tmp_path / "net.onnx")
    with pytest.raises(ss.SpikestrapError, match=r"missing/net\.onnx: cannot be written"):
        exchange.write(net, tmp_path / "missing" / "net.onnx")
    with torch.no_grad():
        net.blocks[1].synapse.layer.weight[0, 0] = float("inf")
    with pytest.raises(ss.SpikestrapError, match=r"block 1 .Dense.: it holds NaN or inf"):
        exchange.write(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
