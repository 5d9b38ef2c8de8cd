import pytest
import torch
from torch.nn import functional as F

import spikestrap as ss
from spikestrap.block import Residual

NEURON = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5, "norm": "batch"}
CONV = ss.block.integrate_fire.Conv


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_hand(block, x, activation):
    """He et al., figure 3, in torch's functions; x (N, C, H, W)."""
    first, second, shortcut = block.first, block.second, block.shortcut
    stride = first.synapse.layer.stride

    def norm(z, n):
        return F.batch_norm(z, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps)

    y = norm(F.conv2d(x, first.synapse.weight, None, stride, 1), first.norm)
    z = norm(F.conv2d(activation(y), second.synapse.weight, None, 1, 1), second.norm)
    if shortcut.synapse is not None:
        x = norm(F.conv2d(x, shortcut.synapse.weight, None, stride), shortcut.norm)
    return activation(z + x)


@pytest.mark.parametrize(("features", "stride"), [(4, 1), (6, 1), (4, 2), (6, 2)])
def test_at_one_step_it_is_the_block_of_the_paper_with_a_step_for_activation(features, stride):
    block = Residual(CONV, NEURON, 4, features, stride).eval()
    x = (torch.rand(3, 4, 9, 8) > 0.5).float()
    y = block(x.unsqueeze(0), mode=ss.Mode.SNN)
    expected = by_hand(block, x, lambda z: (z + 0.5 > 1).float())
    assert y[0].equal(expected)
    assert 0 < y.mean() < 1


def test_as_an_ann_it_is_the_same_with_its_curves():
    block = Residual(CONV, NEURON, 4, 4).eval()
    x = torch.rand(2, 4, 6, 6)
    spikes = torch.rand(8, 2, 4, 6, 6) < x
    block(spikes.float(), mode=ss.Mode.SAMPLE)
    rates = block(x, mode=ss.Mode.FIT)
    first, second = block.first.unit.sampler, block.second.unit.sampler
    curves = iter((first, second))
    torch.testing.assert_close(rates, by_hand(block, x, lambda z: next(curves)(z)))


@pytest.mark.parametrize("stride", [1, 2])
def test_all_but_the_neurons_commutes_with_the_mean_over_time(stride):
    block = Residual(CONV, NEURON, 4, 4, stride)
    for module in (block.first, block.second):
        module.unit = Identity()
    x = torch.rand(5, 3, 4, 8, 8)
    over_time = block(x, mode=ss.Mode.SNN)
    block(x, mode=ss.Mode.SNN)
    torch.testing.assert_close(over_time.mean(0), block(x.mean(0), mode=ss.Mode.ANN))


class Identity(torch.nn.Module):
    def forward(self, z, mode, time_steps=None):
        return z


def test_crosses_over_to_the_mean_of_spikes():
    block = Residual(CONV, NEURON, 4, 4)
    spikes = (torch.rand(4, 3, 4, 6, 6) > 0.5).float()
    block(spikes, mode=ss.Mode.SAMPLE)
    block(spikes, mode=ss.Mode.FIT)
    block.eval()
    given_time, given_rates = (block(x, mode=ss.Mode.ANN) for x in (spikes, spikes.mean(0)))
    assert given_time.equal(given_rates)


def test_a_held_input():
    block = Residual(CONV, NEURON, 4, 6, 2).eval()
    x = torch.rand(3, 4, 8, 8)
    held = block(ss.hold(x, 5), mode=ss.Mode.SNN)
    assert held.shape == (5, 3, 6, 4, 4)
    assert held.equal(block(ss.hold(x, 5).clone(), mode=ss.Mode.SNN))


def test_in_a_network_gradients_reach_every_parameter():
    net = ss.Network(
        CONV(NEURON, 1, 4, 3, padding=1),
        Residual(CONV, NEURON, 4, 6, 2),
        ss.block.Flatten(),
        ss.block.Affine(None, 6 * 16, 10),
        time_steps=4,
    )
    x = torch.rand(6, 1, 8, 8)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.LayerMode(ss.Mode.ANN, 1), ss.Mode.ANN):
        net.zero_grad()
        net(x, mode).square().sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, (mode, name)
            assert parameter.grad.isfinite().all()


def test_dropout_comes_last():
    block = Residual(CONV, {**NEURON, "dropout": 0.5}, 4, 4)
    block.second.unit = Identity()
    y = block(torch.rand(2, 50, 4, 3, 3), mode=ss.Mode.SNN)
    assert 0.3 < (y == 0).float().mean() < 0.7
