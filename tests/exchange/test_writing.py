"""What holds for every format that is written."""

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
