"""What holds for every format that is written."""

import copy

import numpy as np
import onnx.reference
import pytest
import torch

import spikestrap as ss

FORMATS = (".net", ".nir", ".onnx")
formats = pytest.mark.parametrize("kind", FORMATS)


def network(kind, of=ss.Network):
    """A small network that the format can hold."""
    neuron = {"threshold": 0.5}
    net = of(
        ss.block.cuba.Input(neuron, 2.0),
        ss.block.cuba.Dense(neuron, 6, 5, weight_scale=3.0),
        ss.block.cuba.Affine(neuron, 5, 3),
        time_steps=4,
        precision="loihi" if kind == ".net" else "float",
    )
    if kind == ".onnx":
        x = torch.rand(32, 6)
        net(x, ss.Mode.SAMPLE)
        net(x, ss.Mode.FIT)
    return net.eval()


class Inverted(ss.Network):
    def forward(self, x, mode=ss.Mode.SNN, lengths=None):
        return super().forward(1 - x, mode, lengths)


@formats
def test_a_forward_of_its_own_is_refused(kind, tmp_path):
    with pytest.raises(ss.SpikestrapError, match="Inverted has a forward of its own, which would"):
        ss.save(network(kind, Inverted), tmp_path / f"net{kind}")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def read(path):
    """What onnx's reference or the package itself makes of a file: x to logits."""
    if path.suffix == ".onnx":
        session = onnx.reference.ReferenceEvaluator(str(path))
        return lambda x: torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])
    net = ss.load(path)
    if path.suffix == ".net":
        return lambda x: torch.from_numpy(net.run(x).logits)
    return net


def check(kind, net, path):
    """The file gives the network's logits."""
    x = torch.rand(8, 6, dtype=torch.float32)
    mode = ss.Mode.ANN if kind == ".onnx" else ss.Mode.SNN
    expected = copy.deepcopy(net).float()(x, mode)
    torch.testing.assert_close(read(path)(x).float(), expected.detach().float(), atol=1e-5, rtol=0)


@formats
def test_with_float64_as_torchs_default(kind, tmp_path, double_by_default):
    net, path = network(kind), tmp_path / f"net{kind}"
    ss.save(net, path)
    torch.set_default_dtype(torch.float32)
    check(kind, net, path)


@formats
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_within_autocast(kind, dtype, tmp_path):
    net, path = network(kind), tmp_path / f"net{kind}"
    with torch.autocast("cpu", dtype):
        ss.save(net, path)
    check(kind, net, path)


@formats
@pytest.mark.parametrize("pending", [True, False])
def test_within_inference_mode(kind, pending, tmp_path):
    net, path = network(kind), tmp_path / f"net{kind}"
    with torch.inference_mode():
        if pending:
            net(torch.rand(64, 6), ss.Mode.SAMPLE)
        ss.save(net, path)
        found = ss.load(path) if kind == ".nir" else None
    check(kind, net, path)
    if found is not None:
        found(torch.rand(8, 6)).sum().backward()


@formats
@pytest.mark.parametrize("shape", [6, (2, 3), (-6,), "a"])
def test_what_is_no_shape_is_refused(kind, shape, tmp_path):
    with pytest.raises(ss.SpikestrapError, match=r"input_shape must be .C,. or .C, H, W., got"):
        ss.save(network(kind), tmp_path / f"net{kind}", input_shape=shape)
    ss.save(network(kind), tmp_path / f"net{kind}", input_shape=(np.int64(6),))


@formats
def test_unknown_options_are_refused(kind, tmp_path):
    path = tmp_path / f"net{kind}"
    with pytest.raises(ss.SpikestrapError, match=f"a {kind} file takes no option 'foo'"):
        ss.save(network(kind), path, foo=1)
    if kind != ".onnx":
        ss.save(network(kind), path)
        with pytest.raises(ss.SpikestrapError, match=f"a {kind} file takes no option 'foo'"):
            ss.load(path, foo=1)
    if kind == ".nir":
        with pytest.raises(ss.SpikestrapError, match="'foo'; expected dt, time_steps, max_bytes"):
            ss.load(path, foo=1)
