import numpy as np
import pytest
import torch
from tests.shared import GOLDEN, MNIST, needs_golden

import spikestrap as ss
from spikestrap import block, fixed
from spikestrap.exchange import lava_dl, netx
from spikestrap.train import mnist

NEURON = {"threshold": 1.25, "current_decay": 1.0, "voltage_decay": 0.03}
CHECKPOINT = GOLDEN / "bootstrap_mnist.pt"


def network(*, hidden=512, precision="loihi", **affine):
    return ss.Network(
        block.Flatten(),
        block.cuba.Input(NEURON),
        block.cuba.Dense(NEURON, 784, hidden, weight_norm=True),
        block.cuba.Dense(NEURON, hidden, 512, weight_norm=True),
        block.cuba.Affine(NEURON, 512, 10, **{"bias": False, "weight_norm": True, **affine}),
        time_steps=16,
        precision=precision,
    )


@needs_golden
def test_the_checkpoint_at_the_chips_precision_is_what_lava_dl_exported(tmp_path):
    net = network()
    lava_dl.load_state_dict(net, CHECKPOINT)
    ss.save(net, tmp_path / "network.net")
    ours, theirs = netx.read(tmp_path / "network.net"), netx.read(GOLDEN / "bootstrap_mnist.net")
    assert ours.layers[0].weight == theirs.layers[0].weight
    # lava-dl's file has 64 there for the checkpoint's 64.93, and a last layer that is stale.
    assert (ours.layers[0].bias, theirs.layers[0].bias) == (65, 64)
    for number in (1, 2):
        assert np.array_equal(ours.layers[number].weight, theirs.layers[number].weight)
    for our_layer, their_layer in zip(ours.layers[:3], theirs.layers[:3], strict=True):
        for name in ("threshold", "current_decay", "voltage_decay"):
            assert getattr(our_layer.neuron, name) == getattr(their_layer.neuron, name)
    test = mnist(MNIST).test
    chip = fixed.from_network(net).run(test.x).logits
    assert 100 * (chip.argmax(1) == test.y.numpy()).mean() >= 99.1
    assert np.array_equal(chip, ours.run(test.x).logits)


@needs_golden
def test_weight_norm_makes_no_difference_to_what_is_loaded():
    with_norm, without = network(precision="float"), network(precision="float", weight_norm=False)
    for net in (with_norm, without):
        lava_dl.load_state_dict(net, CHECKPOINT)
    torch.testing.assert_close(
        with_norm.blocks[-1].synapse.weight, without.blocks[-1].synapse.weight
    )


@needs_golden
def test_pixels_of_another_range_give_the_same_current():
    x = torch.rand(3, 784)
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        net = network(precision="float")
        lava_dl.load_state_dict(net, CHECKPOINT, input_range=(low, high))
        current = net.blocks[1].synapse(x)
        expected = 1.1885536909103394 * (low + (high - low) * x) + 1.0145474672317505
        torch.testing.assert_close(current, expected)


@needs_golden
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (network(hidden=100), r"block 1 .Dense.: synapse.weight_v: expected shape \(100, 784\)"),
        (ss.Network(block.cuba.Dense(NEURON, 2, 2)), "expected 1 blocks with a synapse.*got 4"),
    ],
)
def test_another_network_is_refused_and_unchanged(net, message):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ss.SpikestrapError, match=message):
        lava_dl.load_state_dict(net, CHECKPOINT)
    assert all(before[key].equal(value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.ones(1)}, "'weight': expected a tensor of a numbered block"),
        ({"blocks.0.weight": torch.tensor([torch.nan])}, "blocks.0.weight: expected finite"),
        ({"a.0.weight": torch.ones(1), "b.1.weight": torch.ones(1)}, "expected one list of blocks"),
        ([1, 2], "expected a state dict, got list"),
    ],
)
def test_other_content_is_refused(state, message, tmp_path):
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ss.SpikestrapError, match=message):
        lava_dl.load_state_dict(network(), tmp_path / "x.pt")


def test_a_saved_network_is_told_from_a_damaged_file(tmp_path):
    torch.save(torch.nn.Linear(40, 40), tmp_path / "x.pt")
    with pytest.raises(ss.SpikestrapError, match=r"state dict, as torch\.save\(net\.state_dict"):
        lava_dl.load_state_dict(network(), tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:1000])
    with pytest.raises(ss.SpikestrapError, match="got a damaged file"):
        lava_dl.load_state_dict(network(), tmp_path / "x.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Bad:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"blocks.0.weight": Bad()}, tmp_path / "x.pt")
    with pytest.raises(ss.SpikestrapError, match=r"expected a state dict.* got objects whose code"):
        lava_dl.load_state_dict(network(), tmp_path / "x.pt")
