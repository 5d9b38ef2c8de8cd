import pytest
import torch

import spikestrap as ss
from spikestrap import Mode, SpikestrapError, hold
from spikestrap.block import sigma_delta

NEURON = {"threshold": 1e-4, "activation": "relu"}


def test_a_network_is_an_ordinary_one_that_sends_changes():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        sigma_delta.Input({"threshold": 1e-4}),
        sigma_delta.Conv(NEURON, 2, 4, 3),
        ss.block.Flatten(),
        sigma_delta.Dense({**NEURON, "bias": 0.1}, 36, 5),
    )
    video = torch.rand(6, 3, 2, 5, 5)
    sent = net(video).cumsum(0)
    with torch.no_grad():
        conv, dense = net[1].synapse.weight, net[3].synapse.weight
        a = torch.relu(torch.nn.functional.conv2d(video.flatten(0, 1), conv)).flatten(1)
        expected = torch.relu(a @ dense.T + 0.1).unflatten(0, (6, 3))
    torch.testing.assert_close(sent, expected, rtol=0, atol=5e-3)


def test_a_still_picture_costs_nothing_after_the_first_step():
    block = sigma_delta.Input({"threshold": 0.1})
    out = block(hold(torch.rand(3, 8) + 1, 5))
    assert (out[0] != 0).all()
    assert (out[1:] == 0).all()


def test_trains_directly():
    net = ss.Network(
        sigma_delta.Input({"threshold": 0.05}),
        sigma_delta.Dense({"threshold": 0.05}, 6, 5),
        sigma_delta.Affine({"threshold": 0.05}, 5, 3),
        time_steps=4,
    )
    net(torch.rand(8, 6), Mode.SNN).sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters())


@pytest.mark.parametrize("mode", [Mode.SAMPLE, Mode.FIT, Mode.ANN])
def test_refuses_to_be_bootstrapped(mode):
    for block in (sigma_delta.Input({"threshold": 0.1}), sigma_delta.Dense(NEURON, 6, 6)):
        with pytest.raises(SpikestrapError, match="cannot be bootstrapped: it sends signed chan"):
            block(torch.rand(4, 2, 6), mode=mode)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: sigma_delta.Dense(NEURON, 6, 5, bias=True), "Dense: bias"),
        (lambda: sigma_delta.Conv(NEURON, 2, 4, 3, bias=True), "Conv: bias"),
        (lambda: sigma_delta.ConvT({**NEURON, "norm": "batch"}, 2, 4, 3), "ConvT: norm"),
    ],
)
def test_refuses_constants(make, what):
    with pytest.raises(SpikestrapError, match=f"{what} would be summed up"):
        make()
