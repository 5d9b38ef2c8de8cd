"""One block alone becomes the layer that it is in a network."""

import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap.fixed import from_network, layer_of

NEURON = {"threshold": 0.5, "voltage_decay": 0.1}


def test_layers_of_blocks_are_those_of_the_network():
    net = ss.Network(
        ss.block.cuba.Input(NEURON, 2.0, -1.0),
        ss.block.cuba.Conv({**NEURON, "norm": "batch"}, 1, 3, 3, padding=1, weight_norm=True),
        ss.block.cuba.Pool(NEURON, 2),
        ss.block.Flatten(),
        ss.block.cuba.Dense(NEURON, 12, 5),
        ss.block.cuba.Affine(NEURON, 5, 2),
        time_steps=4,
        precision="loihi",
    )
    net(torch.rand(8, 1, 4, 4))
    whole = from_network(net, (1, 4, 4)).layers
    shapes = [(1, 4, 4), (1, 4, 4), (3, 4, 4), (3, 2, 2), (12,), (5,)]
    for block, shape, expected in zip(net.blocks, shapes, whole, strict=True):
        found = layer_of(block, shape)
        assert type(found) is type(expected)
        for name, value in vars(expected).items():
            ours = getattr(found, name)
            if isinstance(value, ss.fixed.Neuron):
                assert repr(ours) == repr(value)
            else:
                np.testing.assert_array_equal(ours, value, err_msg=name)


def test_what_has_none():
    dense = ss.block.cuba.Dense(NEURON, 4, 3)
    with pytest.raises(ss.SpikestrapError, match="of floats"):
        layer_of(dense, (4,))
    with pytest.raises(ss.SpikestrapError, match="no counterpart"):
        layer_of(ss.block.AvgPool(2), (1, 4, 4))
    with pytest.raises(ss.SpikestrapError, match="no counterpart"):
        layer_of(torch.nn.ReLU(), (4,))
    dense.quantize()
    neuron = dense.unit.neuron
    dense.quantize(4)  # again: other bits, the same neuron
    assert dense.unit.neuron is neuron
    assert dense.quantizer.bits == 4


def test_a_block_of_floats_in_a_network():
    net = ss.Network(ss.block.cuba.Dense(NEURON, 4, 3), precision="loihi")
    net.blocks[0].quantizer = None
    with pytest.raises(ss.SpikestrapError, match=r"block 0 \(Dense\): .*got one of floats"):
        from_network(net)


class Inverted(ss.block.cuba.Dense):
    def forward(self, x, mode=ss.Mode.SNN):
        return super().forward(1 - x, mode)


class Doubled(ss.block.cuba.Dense):
    def _run(self, x, mode):
        return super()._run(2 * x, mode)


class Late(ss.block.Flatten):
    def forward(self, x, mode=ss.Mode.SNN):
        return super().forward(x.roll(1, 0), mode)


@pytest.mark.parametrize("kind", [Inverted, Doubled])
def test_a_block_that_runs_otherwise_is_not_taken_for_what_it_derives_from(kind):
    entry = ss.block.cuba.Input(NEURON)
    net = ss.Network(entry, kind(NEURON, 4, 3), time_steps=4, precision="loihi")
    with pytest.raises(ss.SpikestrapError, match=f"block 1 .{kind.__name__}.: .*forward of its"):
        from_network(net)
    with pytest.raises(ss.SpikestrapError, match="forward of its own"):
        layer_of(net.blocks[1], (4,))
    first = ss.Network(Late(), entry, time_steps=4, precision="loihi")
    with pytest.raises(ss.SpikestrapError, match=r"block 0 .Late.: .*forward of its own"):
        from_network(first, (1, 2, 2))


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["synapse.layer.weight", "unit.neuron.voltage_decay"])
def test_what_training_left_infinite_or_nan_is_named(place, worst):
    net = ss.Network(
        ss.block.cuba.Input(NEURON),
        ss.block.cuba.Dense({**NEURON, "learnable": ("voltage_decay",)}, 4, 3),
        ss.block.cuba.Affine(NEURON, 3, 2),
        time_steps=4,
        precision="loihi",
    )
    with torch.no_grad():
        net.blocks[1].get_parameter(place).view(-1)[0] = worst
    net(torch.rand(2, 4), ss.Mode.SNN)  # runs, as it does in floats
    message = f"{place}: expected finite numbers, got NaN or inf"
    with pytest.raises(ss.SpikestrapError, match=rf"block 1 .Dense.: {message}"):
        from_network(net)
    with pytest.raises(ss.SpikestrapError, match=message):
        layer_of(net.blocks[1], (4,))


def test_weight_norm_of_a_row_of_zeros_is_nan_and_says_so():
    dense = ss.block.cuba.Dense(NEURON, 4, 3, weight_norm=True)
    dense.quantize()
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.zero_()
    with pytest.raises(ss.SpikestrapError, match="expected finite weights and parameters, got NaN"):
        layer_of(dense, (4,))
