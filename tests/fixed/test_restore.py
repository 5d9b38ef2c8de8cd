"""Integer layers as a network again: it fires as they do, or is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixed.cases import random_layers, random_network
from tests.shared import GOLDEN, needs_golden

import spikestrap as ss
from spikestrap import block, fixed
from spikestrap.exchange import netx

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(seed=seeds)
def test_there_and_back(seed):
    net, shape, time_steps = random_network(seed)
    chip = fixed.from_network(net, shape)
    again = fixed.to_network(chip)
    assert again.time_steps == time_steps
    x = torch.rand(3, *shape)
    with torch.no_grad():
        assert torch.equal(again(x), net(x))
    assert np.array_equal(fixed.from_network(again, shape).run(x).logits, chip.run(x).logits)


@settings(max_examples=150)
@given(seed=seeds)
def test_any_layers_fire_alike_or_are_refused(seed):
    chip = random_layers(seed)
    chip.time_steps = 5
    try:
        net = fixed.to_network(chip)
    except ss.SpikestrapError as error:
        message = str(error)
        assert "\n" not in message
        assert "with a bias, a norm or an Input block" in message or "does not train" in message
        return
    entry = chip.layers[0]
    lead = (2,) if entry.neuron is not None else (5, 2)
    x = torch.randint(2, (*lead, *entry.shape)).float()
    with torch.no_grad():
        assert net(x).numpy() == pytest.approx(chip.run(x, 5).logits, abs=1e-5)


def test_spikes_that_come_in_as_images_and_are_flattened():
    neuron, weight = fixed.Neuron(np.array(90)), 2 * np.arange(-18, 18).reshape(2, 18)
    for delay in (None, np.array([2, 0])):
        entry, flat = fixed.Input((2, 3, 3), None, delay), fixed.Flatten((18,))
        chip = fixed.Network([entry, flat, fixed.Dense((2,), neuron, weight=weight)], time_steps=7)
        net = fixed.to_network(chip)
        assert net.time_steps is None
        x = torch.randint(2, (7, 4, 2, 3, 3)).float()
        assert net(x).detach().numpy() == pytest.approx(chip.run(x).logits, abs=1e-6)


def test_images_for_a_flat_input():
    neuron = {"threshold": 1.0, "voltage_decay": 0.1}
    made = block.Flatten(), block.cuba.Input(neuron, 2.0), block.cuba.Dense(neuron, 18, 5)
    net = ss.Network(*made, block.Affine(None, 5, 3), time_steps=8, precision="loihi")
    images = torch.rand(4, 2, 3, 3)
    with torch.no_grad():
        again = fixed.to_network(fixed.from_network(net, (2, 3, 3)))
        assert torch.equal(again(images), net(images))
        assert torch.equal(again(images.flatten(1)), net(images))


@needs_golden
def test_lava_dls_network_trains_on():
    chip = netx.read(GOLDEN / "bootstrap_mnist.net")
    net, x = fixed.to_network(chip), torch.rand(8, 784)
    assert net.time_steps == 16
    with torch.no_grad():
        assert np.array_equal(net(x).numpy(), chip.run(x).logits.astype(np.float32))
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@needs_golden
def test_pilotnet_too():
    net = fixed.to_network(netx.read(GOLDEN / "pilotnet_lif/network.net"))
    kinds = [type(block).__name__ for block in net.blocks]
    assert kinds == ["Input", *["Conv"] * 5, "Flatten", *["Dense"] * 4]


def layers(**options):
    neuron = fixed.Neuron(np.array(64))
    values = {"shape": (1,), "neuron": neuron, "weight": np.full((1, 2), 10), **options}
    return fixed.Network([fixed.Input((2,), neuron), fixed.Dense(**values)])


@pytest.mark.parametrize(
    ("chip", "message"),
    [
        (layers(weight=np.full((1, 2), 11)), r"layer 1 .Dense.: its weight has values"),
        (layers(recurrent=np.full((1, 1), 11)), r"layer 1 .Dense.: its recurrent has values"),
        (
            layers(neuron=fixed.Neuron(np.array(64), current_decay=np.array(0))),
            "its current_decay has values",
        ),
        (
            layers(bias=np.ones(1), neuron=fixed.Neuron(np.array(64), np.array(99))),
            "block 2 .Dense.: .*on the chip a bias joins the membrane",
        ),
        (
            fixed.Network(
                [fixed.Input((1, 3, 3)), fixed.Conv((1, 3, 3), weight=np.ones((1, 1, 1, 1)))]
            ),
            "layer 1 .Conv.: expected a dense layer as readout",
        ),
    ],
)
def test_what_does_not_train_is_refused(chip, message):
    with pytest.raises(ss.SpikestrapError, match=message):
        fixed.to_network(chip)
